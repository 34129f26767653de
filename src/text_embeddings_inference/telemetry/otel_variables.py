"""What OpenTelemetry's variables say: where traces are sent (as `--otlp-endpoint` does), and which requests are traced.

https://opentelemetry.io/docs/specs/otel/protocol/exporter and .../configuration/sdk-environment-variables; headers,
timeout, compression, certificates and the sizes of batches (`OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`) are read by
opentelemetry itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from ..errors import SettingsError

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]

PROTOCOLS: Mapping[str, Protocol] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}
TRACES_PATH = "v1/traces"


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans are sent."""

    protocol: Protocol
    url: str
    """Encrypted if its scheme is https, by gRPC too."""

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


SAMPLER, SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
PARENT_BASED = "parentbased_"
SHARES = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
"""Sampler -> the share of requests it traces; None: that of `SAMPLER_ARGUMENT`."""
ID_RANGE = 1 << 64
"""Of the low half of a trace's id, which decides: the same at every service that asks for the same share."""


class Sampler(NamedTuple):
    """Says which requests are traced: without variables all are, also those whose caller is not, as
    text-embeddings-inference does it."""

    share: float = 1.0
    """Of the requests, from 0 to 1."""
    follows_caller: bool = False
    """Whether the caller decides, if it says whether it is traced."""

    @staticmethod
    def of(environ: Mapping[str, str]) -> Sampler:
        """Raises SettingsError."""
        text = environ.get(SAMPLER) or "always_on"
        name = text.removeprefix(PARENT_BASED)
        if name not in SHARES:
            known = ", ".join([*SHARES, *(PARENT_BASED + name for name in SHARES)])
            raise SettingsError(f"invalid value '{text}' for {SAMPLER}\n  [possible values: {known}]")
        share = SHARES[name]
        return Sampler(_share(environ) if share is None else share, text != name)

    def takes(self, trace: int, caller_is_traced: bool | None) -> bool:
        """Whether the request with this trace id is traced; caller_is_traced: None without a caller."""
        if self.follows_caller and caller_is_traced is not None:
            return caller_is_traced
        return trace % ID_RANGE < self.share * ID_RANGE


ALL = Sampler()


def _share(environ: Mapping[str, str]) -> float:
    text = environ.get(SAMPLER_ARGUMENT) or "1"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingsError(f"invalid value '{text}' for {SAMPLER_ARGUMENT}: a number from 0 to 1 is expected")
    return share
