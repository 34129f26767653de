"""When an engine is measured: before the server is ready, or in the first quiet moment after."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..engines.base import Engine
from .runner import Runner

logger = logging.getLogger(__name__)

Step = Callable[[float], None]
"""A measurement that takes so many seconds at most. Raises InterruptedError if other batches ran meanwhile."""

FAST_S = 0.25
"""For each of two measurements while requests may come in at any time."""
FULL_S = 10.0
"""The same before the server is ready."""
QUIET_S = 1.0
"""After so long without work the engine is taken to have time."""
ATTEMPTS = 3


class Tuner:
    """Measures an engine and tells its runner."""

    def __init__(self, engine: Engine, runner: Runner, *, batch_tokens: bool, streams: bool) -> None:
        """batch_tokens, streams: what is to be found out; the other was set by hand."""
        steps = ((batch_tokens, engine.tune_batch_tokens), (streams, engine.tune_streams))
        self._steps: Sequence[Step] = [step for wanted, step in steps if wanted]
        self._engine = engine
        self._runner = runner
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self, seconds: float = FULL_S) -> None:
        """Measures now. Raises InterruptedError if other batches ran meanwhile."""
        for step in self._steps:
            step(seconds)
            self._runner.engine_changed()
        logger.info("Batches of up to %d tokens, %d at a time", self._engine.batch_tokens, self._engine.streams)

    def start(self) -> None:
        """Measures in a thread, in the first quiet moment."""
        self._thread = threading.Thread(target=self._when_quiet, name="tuner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when nothing is measured any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _when_quiet(self) -> None:
        attempts = 0
        while attempts < ATTEMPTS and not self._stop.wait(QUIET_S):
            if self._runner.engine is not self._engine:
                return  # it was replaced, and the other took over what is known
            if not self._runner.idle:
                continue
            try:
                self.run(FAST_S)
                return
            except InterruptedError:
                attempts += 1
