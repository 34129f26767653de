"""How long a server waits for its clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...settings import Settings

STRIDE = 1 << 16
"""Bytes that make enough progress: the time is counted anew after each of them."""
LOWEST_RATE = 1 << 16
"""Bytes of answers a second that a client has to read on average, once it has taken longer than the time-out."""
LINGER_S = 5.0
"""Seconds in which a client that was refused may still send what is not read."""
HANDSHAKE_S = 10.0
"""Seconds that a TLS handshake may take."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds; None: for ever."""

    client: float | None
    """To send a request or to read an answer, or the next STRIDE bytes of it."""
    idle: float | None
    """Between two requests of a connection."""

    @staticmethod
    def of(settings: Settings) -> Timeouts:
        return Timeouts(settings.server.client_timeout, settings.server.keep_alive_timeout)


class RunningClock:
    """Seconds in which this process ran. What clients sent while it did not (SIGSTOP, a paused container, a stall) is
    unread when it goes on, so that time must not count against them.

    step: seconds between two calls of `tick` as long as the process runs; no call counts for more than twice that.
    """

    def __init__(self, clock: Callable[[], float], step: float) -> None:
        self.now = 0.0
        self._clock = clock
        self._longest = 2 * step
        self._last = clock()

    def tick(self) -> None:
        """Lets the time run on."""
        now = self._clock()
        self.now += min(now - self._last, self._longest)
        self._last = now
