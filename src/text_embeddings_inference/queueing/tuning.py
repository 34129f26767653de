"""When an engine is measured: before the server is ready, or in the first quiet moment after."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from ..engines.measure import Quantity, measure
from ..telemetry.throttle import ErrorLog
from .runner import Runner

logger = logging.getLogger(__name__)

FAST_S = 0.25
"""For each of two measurements while requests may come in at any time."""
FULL_S = 10.0
"""The same before the server is ready."""
QUIET_S = 1.0
"""After so long without work the engine is taken to have time."""
ATTEMPTS = 3


class Tuner:
    """Measures the engine in a runner's service, and sets the runner's capacity."""

    def __init__(self, runner: Runner, wanted: Collection[Quantity]) -> None:
        """wanted: what is to be found out; the rest was set by hand."""
        self._runner = runner
        self._wanted = wanted
        self._errors = ErrorLog(logger)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self, seconds: float = FULL_S) -> None:
        """Measures now. Raises InterruptedError if other batches ran meanwhile."""
        runner, batches = self._runner, self._runner.batches
        capacity = measure(
            runner.engine, runner.capacity, self._wanted, seconds, undisturbed=lambda: runner.batches == batches
        )
        runner.set_capacity(capacity)
        logger.info("Batches of up to %d tokens, %d at a time", capacity.batch_tokens, capacity.streams)

    def start(self, after: threading.Thread | None = None) -> None:
        """Measures in a thread, in the first quiet moment. after: a thread that runs the engine too, and is waited
        for."""
        self._thread = threading.Thread(target=self._when_quiet, args=(after,), name="tuner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when nothing is measured any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _when_quiet(self, after: threading.Thread | None) -> None:
        if after is not None:
            after.join()
        attempts = 0
        while attempts < ATTEMPTS and not self._stop.wait(QUIET_S):
            if not (self._runner.idle and self._runner.healthy):
                continue
            try:
                self.run(FAST_S)
                return
            except InterruptedError:
                attempts += 1
            except Exception:  # whatever the hardware's library raises; the engine serves all the same
                attempts += 1
                self._errors.exception("the engine could not be measured")
