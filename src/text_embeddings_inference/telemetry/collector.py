"""Where traces are sent: `--otlp-endpoint` and the variables of OpenTelemetry that say it, too.

https://opentelemetry.io/docs/specs/otel/protocol/exporter; headers, timeout, compression, certificates and the sizes of
batches (`OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`) are read by opentelemetry itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ..errors import SettingsError

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]

PROTOCOLS: Mapping[str, Protocol] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}
TRACES_PATH = "v1/traces"


@dataclass(frozen=True, slots=True)
class Collector:
    """url: of the receiver of spans; http: encrypted or not as its scheme says, and so for gRPC."""

    protocol: Protocol
    url: str

    @staticmethod
    def of(endpoint: str, environ: Mapping[str, str]) -> Collector | None:
        """The variables win over the option; None where what they name is no URL. Raises SettingsError."""
        protocol = _protocol(environ)
        whole = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        url = whole or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or endpoint
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return None
        if protocol == "http/protobuf" and not whole and not parts.path.rstrip("/").endswith(TRACES_PATH):
            url = f"{url.rstrip('/')}/{TRACES_PATH}"
        return Collector(protocol, url)


def _protocol(environ: Mapping[str, str]) -> Protocol:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        text = environ.get(name)
        if text:
            if text not in PROTOCOLS:
                raise SettingsError(f"invalid value '{text}' for {name}\n  [possible values: {', '.join(PROTOCOLS)}]")
            return PROTOCOLS[text]
    return "grpc"
