"""How long a server waits for a client."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import Settings

STRIDE = 1 << 16
"""Bytes that make enough progress: the time is counted anew after each of them."""
LINGER_S = 5.0
"""Seconds in which a client that was told of its fault may still send what nobody reads."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; None: for ever. client: to send a request or read an answer, or the next STRIDE bytes of it; idle:
    between two requests of a connection."""

    client: float | None
    idle: float | None

    @staticmethod
    def of(settings: Settings) -> Patience:
        return Patience(settings.server.client_timeout, settings.server.keep_alive_timeout)
