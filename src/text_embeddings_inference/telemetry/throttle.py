"""Events that may come again and again, logged in few lines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

REPEATED_EVERY_S = 60.0


class Throttle:
    """Lets one line through in each interval, and counts the events of which nothing was logged.

    Used from any thread; two that come in the same moment may both get through.
    """

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s = every_s
        self._clock = clock
        self._passed_at = -math.inf
        self._events = 0

    def passes(self) -> int:
        """Called for each event: 0 if it should not be logged, else how many a line now stands for, itself included."""
        self._events += 1
        now = self._clock()
        if now - self._passed_at < self._every_s:
            return 0
        events, self._events, self._passed_at = self._events, 0, now
        return events


class ErrorLog:
    """Logs the errors that a loop survives: the first with its traceback, then one a minute with the number of those
    between."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._throttle = Throttle(REPEATED_EVERY_S, clock)

    def exception(self, what: str) -> None:
        """Called where the error is handled. what: failed, and what follows from it."""
        if events := self._throttle.passes():
            others = f" ({events - 1} such errors were not logged)" if events > 1 else ""
            self._logger.exception("%s%s", what, others)
