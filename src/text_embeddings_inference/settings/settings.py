"""All settings of a server, sorted by what they set, and the command line that they come from.

Flag and variable follow from a field's name: `max_batch_tokens` is `--max-batch-tokens` and `MAX_BATCH_TOKENS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any, cast

from .command_line import CommandLine
from .engine import EngineOptions
from .hub import HubOptions
from .limits import Limits
from .model import ModelOptions
from .options import GROUPS, OPTION, options_of, take, variables_of
from .server import ServerOptions
from .telemetry import TelemetryOptions

PROGRAM = "text-embeddings-router"
CONTRACT_VERSION = "1.9.3"
"""The version of text-embeddings-inference whose behaviour we give; clients see it in `--version` and `/info`."""

PARTS: Mapping[str, type[Any]] = {
    "model": ModelOptions,
    "engine": EngineOptions,
    "limits": Limits,
    "server": ServerOptions,
    "hub": HubOptions,
    "telemetry": TelemetryOptions,
}
"""Field of `Settings` -> its class."""

ADDED = frozenset(
    [
        *(
            "onnx_file",
            "rerank_template",
            "rerank_answers",
            "trust_remote_code",
            "explain",
            "engine",
            "cpu_level",
            "threads",
            "streams",
        ),
        *("batch_timeout", "max_queued_tokens", "warmup", "compile_cache", "no_compile_cache", "listen_uds"),
        *("tls_cert", "tls_key", "client_timeout", "keep_alive_timeout", "max_connections", "max_queued_bytes"),
        *("shutdown_grace", "grpc_port"),
    ]
)
"""Options that text-embeddings-inference does not have: others may have set their variables, for their own ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server runs with."""

    model: ModelOptions
    """Which model is served, and how its inputs are taken."""
    hub: HubOptions
    """Where models come from that are not in a folder."""
    engine: EngineOptions
    """What runs the model, and in which numbers."""
    limits: Limits
    """What is let in, and what a batch may be."""
    server: ServerOptions
    """Where clients find the server."""
    telemetry: TelemetryOptions
    """What is logged, counted and traced."""
    ignored: tuple[str, ...] = ()
    """What the start log should say of variables that were ignored."""

    @staticmethod
    def of(**values: Any) -> Settings:
        """The settings with these values, each by the name of its option; the others have their defaults.

        A text means what it means on the command line, as `auto`. Raises TypeError for a name that is no option's, for
        a value of a wrong type, and where `model_id` is missing; ValueError for a value that is not allowed.
        """
        parts = {}
        for name, part in PARTS.items():
            own = [declared for declared in fields(part) if declared.name in values]
            parts[name] = part(**{declared.name: take(declared, values.pop(declared.name)) for declared in own})
        if values:
            raise TypeError(f"there is no option {next(iter(values))!r}")
        return Settings(**parts)

    @staticmethod
    def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
        """The settings of a command line (without the program's name) and an environment.

        Raises SettingsError where one is wrong, and `command_line.Shown` when only help or version was asked for.
        """
        given = command_line().parse(argv, environ)
        return replace(Settings.of(**given.values), ignored=given.ignored)

    def warnings(self) -> list[str]:
        """What the start log should say about settings that have no effect, or not the one expected."""
        found = [*self.ignored]
        if self.server.uds_path is not None:
            found.append("`--uds-path` is ignored: there is no separate backend process (see `--listen-uds`)")
        if self.hub.hf_api_token is not None:
            found.append("`--hf-api-token` is deprecated, use `--hf-token`")
        return found

    def redacted(self) -> str:
        """All settings in one line, keys and tokens starred out, for a log that cuts passwords out of addresses."""
        shown = []
        for declared, value in self._values():
            option = declared.metadata.get(OPTION)
            if option is not None and not (option.hidden and value is None):
                text = option.default_text if value is None and option.default_text else repr(value)
                shown.append(f"{declared.name}={'***' if value and not declared.repr else text}")
        return ", ".join(shown)

    def secrets(self) -> Iterator[str]:
        """Keys and tokens, which must not be shown."""
        for declared, value in self._values():
            if not declared.repr and value:
                yield from [value] if isinstance(value, str) else cast(tuple[str, ...], value)

    def _values(self) -> Iterator[tuple[Field[Any], object]]:
        for name in PARTS:
            part = getattr(self, name)
            for declared in fields(part):
                yield declared, getattr(part, declared.name)


def hub_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """The options of the Hub that an environment sets, as the Hub's own client reads it."""
    options = {name: option for name, option in options_of(HubOptions).items() if not option.hidden}
    return CommandLine(PROGRAM, CONTRACT_VERSION, "", options, variables_of(HubOptions)).parse([], environ).values


def command_line() -> CommandLine:
    """The command line of the server."""
    options = options_of(*PARTS.values())
    return CommandLine(
        PROGRAM,
        CONTRACT_VERSION,
        "Serves models for text embedding, reranking, sparse embedding and classification.",
        dict(sorted(options.items(), key=lambda item: GROUPS.index(item[1].group))),
        variables_of(*PARTS.values()),
        ADDED,
    )
