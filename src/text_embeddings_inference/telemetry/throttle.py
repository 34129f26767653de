"""Errors that may come again and again, logged in few lines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

REPEATED_EVERY_S = 60.0


class ErrorLog:
    """Logs the errors that a loop survives: the first with its traceback, then one a minute with the number of others.

    Used from any thread; two that come in the same moment may both be logged.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._logged_at = -math.inf
        self._left_out = 0

    def exception(self, what: str) -> None:
        """Called where the error is handled. what: failed, and what follows from it."""
        now = self._clock()
        if now - self._logged_at < REPEATED_EVERY_S:
            self._left_out += 1
            return
        others, self._left_out, self._logged_at = self._left_out, 0, now
        self._logger.exception("%s%s", what, f" ({others} such errors were not logged)" if others else "")
