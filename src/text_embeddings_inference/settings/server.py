"""Where clients find the server, and who may ask."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError
from .options import (
    MODEL,
    SERVER,
    TRANSPORT,
    Address,
    Boolean,
    File,
    Integer,
    Key,
    Limit,
    Option,
    OptionalText,
    Text,
    Variable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where clients find the server, and who may ask."""

    explain: bool | str = Option(
        OptionalText(),
        MODEL,
        "Say how the model would be served, or all that stands in the way, and stop",
        details="Reads a folder, or of a model on the Hub everything but its weights. The value is the model, in place "
        "of `--model-id`; all other options mean what they mean for a server. As JSON with `--json-output`. The exit "
        "status is 0 if the model would be served, else 1. Not in text-embeddings-inference 1.9.3.",
        gives="model_id",
        variable_value=Boolean(),
    ).field(False)
    hostname: str = Option(
        Text(),
        SERVER,
        "IP address to listen on, v4 or v6, or a name that has one",
        details="`::` is all addresses of both kinds. A variable that holds no address (containers set it to their "
        "name) means all of IPv4, with a warning.",
        variable_value=Address(),
    ).field("0.0.0.0")
    port: int = Option(Integer(0, 65535), SERVER, "Port to listen on; 0: any free one", short="-p").field(3000)
    uds_path: str | None = Option(
        Text(),
        SERVER,
        "Taken for compatibility and ignored, with a warning: there is no separate backend process",
        details="To serve HTTP on a Unix socket use `--listen-uds`.",
        default_text="/tmp/text-embeddings-inference-server",
    ).field(None)
    api_key: tuple[str, ...] = Option(
        Key(),
        SERVER,
        "Key that clients must send, as `Authorization: Bearer <key>`",
        details="Health, metrics and documentation need none. May be given several times on the command line: any of "
        "the keys opens. The variable holds one key, taken as it is.",
        repeatable=True,
        secret=True,
    ).field(())
    cors_allow_origin: tuple[str, ...] = Option(
        Text(),
        SERVER,
        "Origin from which browsers may call; may be given several times",
        details="Example: --cors-allow-origin https://a.example --cors-allow-origin https://b.example",
        default_text="any",
        repeatable=True,
    ).field(())
    listen_uds: Path | None = Option(
        File(), TRANSPORT, "Serve HTTP on this Unix socket, in place of `--hostname` and `--port`"
    ).field(None)
    tls_cert: Path | None = Option(
        File(), TRANSPORT, "Certificate chain (PEM): serve HTTPS; needs `--tls-key`", requires=("tls_key",)
    ).field(None)
    tls_key: Path | None = Option(
        File(), TRANSPORT, "Private key (PEM) of the certificate", requires=("tls_cert",)
    ).field(None)
    client_timeout: int | None = Option(
        Limit(),
        TRANSPORT,
        "Seconds a client may take to send a request or to read an answer; 0: any time",
        details="Of long ones, for each 64 KiB. Half a request is answered with status 408, and the connection ends.",
    ).field(60)
    keep_alive_timeout: int | None = Option(
        Limit(), TRANSPORT, "Seconds after which a connection without requests is closed; 0: never"
    ).field(600)
    shutdown_grace: int | None = Option(
        Limit(),
        TRANSPORT,
        "Seconds in which what was accepted may be finished after SIGINT or SIGTERM; 0: any time",
        details="What is left then is answered with an error. The exit status is 0 either way. A second signal ends "
        "the process at once, with status 130 or 143.",
        default_text="0",
    ).field(None)
    grpc_port: int | None = Option(Integer(0, 65535), TRANSPORT, "Port to serve gRPC on").field(None)
    task: str | None = Variable(
        "TASK", "sentence-similarity: `POST /` of an embedding model does what `/similarity` does."
    ).field(None)
    grpc_max_parallel_stream_requests: int = Variable(
        "GRPC_MAX_PARALLEL_STREAM_REQUESTS",
        "Items of a gRPC stream that are read ahead of the answers. [default: 1024]",
        types=(int,),
        parse=lambda text: int(text) if text.isdecimal() and int(text) else 1024,
    ).field(1024)

    @property
    def address(self) -> str:
        """The IP address to listen on: `hostname`, or what that name stands for. Raises SettingsError."""
        try:
            found = socket.getaddrinfo(self.hostname, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            hint = "give an IP address, such as 127.0.0.1, or 0.0.0.0 for all"
            problem = f"invalid value '{self.hostname}' for '--hostname <HOSTNAME>': no address has this name"
            raise SettingsError(problem, hint=hint) from error
        return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])  # IPv4, if there is one
