"""Every setting of the server, each written once: flag, environment variable, default, unit and help text.

Here are our own; those of text-embeddings-inference 1.9.3 are in `contract_settings`.

Flag and variable follow from the field's name: `max_batch_tokens` is `--max-batch-tokens` and `MAX_BATCH_TOKENS`.
"""

# ruff: noqa: RUF009 - `option` makes dataclass fields

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ..machine import usable_cpus
from .command_line import CommandLine
from .contract_settings import ContractSettings
from .options import OPTION, AutoInteger, File, Integer, Limit, option, words

PROGRAM = "text-embeddings-router"
CONTRACT_VERSION = "1.9.3"
"""The version of text-embeddings-inference whose behaviour we give; clients see it in `--version` and `/info`."""

ENGINE = "Engine (not in text-embeddings-inference 1.9.3)"
TRANSPORT = "Transport (not in text-embeddings-inference 1.9.3)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(ContractSettings):
    """What a server runs with. `given` names the fields that came from the command line or the environment."""

    given: frozenset[str] = frozenset()

    # What follows is our own: text-embeddings-inference 1.9.3 has only `--dtype`, with fewer values.

    engine: Literal["auto", "openvino", "torch"] = option(
        words("auto", "openvino", "torch"),
        ENGINE,
        "What runs the model: OpenVINO on CPUs, PyTorch on GPUs",
        details="auto: PyTorch where it is installed and finds a GPU, else OpenVINO.",
        default="auto",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = option(
        words("auto", "float32", "bfloat16", "float16", "int8"),
        ENGINE,
        "Number type of weights and computation",
        details="auto: float16 on GPUs; on CPUs bfloat16 if they compute it natively, else float32. int8: weights in 8 "
        "bits, on CPUs with VNNI activations too; how near the vectors stay to those of float32 is measured at start "
        "and logged.",
        default="auto",
    )
    threads: int = option(
        Integer(1),
        ENGINE,
        "Threads of the engine, all streams together",
        details="CPUs are counted within the process's affinity mask and cgroup quota.",
        default_factory=usable_cpus,
        default_text="usable CPUs",
    )
    streams: int | None = option(
        AutoInteger(1),
        ENGINE,
        "Batches the engine runs at the same time, each on its share of the threads",
        details="Several streams answer more requests per second with small models, one answers a single request "
        "soonest. A number, or `auto` to let the engine choose.",
        default=None,
        default_text="auto",
    )

    batch_timeout: int | None = option(
        AutoInteger(1),
        ENGINE,
        "Seconds a batch may take in the engine: one that takes longer hangs, and the engine is replaced",
        details="auto: twenty times what its tokens took on average so far, and at least 30. See docs/reliability.md.",
        default=None,
        default_text="auto",
    )
    max_queued_tokens: int | None = option(
        Limit(),
        ENGINE,
        "Most tokens that wait for the engine; 0: no limit",
        details="What comes on top is refused with status 429, as where `--max-concurrent-requests` is reached. A "
        "request never is where nothing else waits.",
        default=1 << 22,
    )
    warmup: Literal["off", "fast", "full"] = option(
        words("off", "fast", "full"),
        ENGINE,
        "What is measured to choose the size of batches and the number of streams",
        details="fast: half a second's worth, in the first quiet moment after the start. full: all that helps, before "
        "the server is ready. off: nothing. What is set by `--max-batch-tokens` and `--streams` stays.",
        default="fast",
    )
    compile_cache: Path | None = option(
        File(),
        ENGINE,
        "Folder for compiled models: starts are faster, and need the memory of the weights once more",
        default=None,
    )

    listen_uds: Path | None = option(
        File(), TRANSPORT, "Serve HTTP on this Unix socket, in place of `--hostname` and `--port`", default=None
    )
    tls_cert: Path | None = option(
        File(),
        TRANSPORT,
        "Certificate chain (PEM): serve HTTPS; needs `--tls-key`",
        default=None,
        requires=("tls_key",),
    )
    tls_key: Path | None = option(
        File(), TRANSPORT, "Private key (PEM) of the certificate", default=None, requires=("tls_cert",)
    )
    client_timeout: int | None = option(
        Limit(),
        TRANSPORT,
        "Seconds a client may take to send a request or to read an answer; 0: any time",
        details="Of long ones, for each 64 KiB. Half a request is answered with status 408, and the connection ends.",
        default=60,
    )
    keep_alive_timeout: int | None = option(
        Limit(), TRANSPORT, "Seconds after which a connection without requests is closed; 0: never", default=600
    )
    max_connections: int = option(
        Integer(1),
        TRANSPORT,
        "Most connections of HTTP at a time, and most calls of gRPC",
        details="One more is answered with status 503, or RESOURCE_EXHAUSTED. The limit of open files is raised for "
        "them as far as the process may.",
        default=10_000,
    )
    max_queued_bytes: int | None = option(
        Limit(),
        TRANSPORT,
        "Most bytes of all bodies of HTTP requests that are not answered yet; 0: no limit",
        details="What comes on top is refused with status 429.",
        default=1 << 29,
    )
    shutdown_grace: int | None = option(
        Limit(),
        TRANSPORT,
        "Seconds in which what was accepted may be finished after SIGINT or SIGTERM; 0: any time",
        details="What is left then is answered with an error. The exit status is 0 either way. A second signal ends "
        "the process at once, with status 130 or 143.",
        default=None,
        default_text="0",
    )
    grpc_port: int | None = option(Integer(0, 65535), TRANSPORT, "Port to serve gRPC on", default=None)

    @staticmethod
    def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
        """The settings of a command line (without the program's name) and an environment.

        Raises SettingsError where one is wrong, and `command_line.Shown` when only help or version was asked for.
        """
        values = command_line().parse(argv, environ)
        return Settings(given=frozenset(values), **values)  # type: ignore[arg-type]  # each option parses to its field

    @property
    def served_name(self) -> str:
        return self.model_id if self.served_model_name is None else self.served_model_name

    @property
    def token(self) -> str | None:
        """The Hub token, whichever option it came by."""
        return self.hf_api_token if self.hf_token is None else self.hf_token

    @property
    def hub_cache(self) -> Path:
        if self.huggingface_hub_cache is not None:
            return Path(self.huggingface_hub_cache)
        return self.hf_home.expanduser() / "hub"

    @property
    def address(self) -> str:
        """The IP address to listen on: `hostname` if it is one, else all."""
        return self.hostname if _is_address(self.hostname) else "0.0.0.0"

    def warnings(self) -> list[str]:
        """What the start log should say about settings that have no effect, or not the one expected."""
        found = []
        if not _is_address(self.hostname) and self.listen_uds is None:
            found.append(f"Invalid hostname `{self.hostname}`, defaulting to 0.0.0.0")
        if "uds_path" in self.given:
            found.append("`--uds-path` is ignored: there is no separate backend process (see `--listen-uds`)")
        if self.hf_api_token is not None:
            found.append("`--hf-api-token` is deprecated, use `--hf-token`")
        return found

    def redacted(self) -> str:
        """All settings in one line, keys and tokens starred out."""
        shown = []
        for declared in fields(self):
            value = getattr(self, declared.name)
            if OPTION in declared.metadata and not (declared.metadata[OPTION].hidden and value is None):
                text = re.sub(r"//[^/@]*@", "//***@", repr(value))  # a name and a password in an address
                shown.append(f"{declared.name}={'***' if value and not declared.repr else text}")
        return ", ".join(shown)


def command_line() -> CommandLine:
    """The command line of the server."""
    return CommandLine.of(
        Settings,
        program=PROGRAM,
        version=CONTRACT_VERSION,
        about="Serves models for text embedding, reranking, sparse embedding and classification.",
    )


def _is_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True
