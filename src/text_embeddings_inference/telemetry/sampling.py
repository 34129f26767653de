"""Which requests are traced: OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, as OpenTelemetry defines them.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables. Without them all requests are, also
those whose caller is not: text-embeddings-inference does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import SettingsError

NAME, ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
PARENT_BASED = "parentbased_"
SAMPLERS = ("always_on", "always_off", "traceidratio")
LOW_BITS = 64
"""Of a trace's id, which decide: the same at every service that asks for the same share."""


class Sampler(NamedTuple):
    """share: of the requests, from 0 to 1; follows_caller: where a caller tells whether it is traced, that decides."""

    share: float = 1.0
    follows_caller: bool = False

    @staticmethod
    def of(environ: Mapping[str, str]) -> Sampler:
        """Raises SettingsError."""
        text = environ.get(NAME) or "always_on"
        name = text.removeprefix(PARENT_BASED)
        if name not in SAMPLERS:
            known = ", ".join([*SAMPLERS, *(PARENT_BASED + name for name in SAMPLERS)])
            raise SettingsError(f"invalid value '{text}' for {NAME}\n  [possible values: {known}]")
        share = {"always_on": 1.0, "always_off": 0.0}.get(name)
        return Sampler(_share(environ) if share is None else share, text != name)

    def takes(self, trace: int, caller_is_traced: bool | None) -> bool:
        """Whether the request with this trace id is traced; caller_is_traced: None without a caller."""
        if self.follows_caller and caller_is_traced is not None:
            return caller_is_traced
        return trace % (1 << LOW_BITS) < self.share * (1 << LOW_BITS)


ALL = Sampler()


def _share(environ: Mapping[str, str]) -> float:
    text = environ.get(ARGUMENT) or "1"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingsError(f"invalid value '{text}' for {ARGUMENT}: a number from 0 to 1 is expected")
    return share
