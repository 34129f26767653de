"""Two threads beside those of the engine: one that looks at deadlines, and one that makes another engine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..engines.base import Engine
from .batch import compute

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""How often deadlines are looked at."""
LONGEST_TICK_S = 2.0
"""More time than this does not pass between two looks: the process was stopped, not the engine."""
LONGEST_PAUSE_S = 60.0
"""Between two attempts to make an engine."""


class Watchdog:
    """Tells how time passes."""

    def __init__(self, tick: Callable[[float], None]) -> None:
        """tick: told the seconds since it was called last."""
        self._tick = tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(TICK_S):
            now = time.monotonic()
            self._tick(min(now - last, LONGEST_TICK_S))
            last = now


class Repair:
    """Makes engines until one works, in a thread that nobody waits for: that can take minutes, or hang too.

    new_engine: may raise; needed: whether there is still none; install: takes it into service, and says whether it did;
    failed: told of each attempt that failed.
    """

    def __init__(
        self,
        new_engine: Callable[[], Engine],
        *,
        needed: Callable[[], bool],
        install: Callable[[Engine], bool],
        failed: Callable[[], None],
    ) -> None:
        self._new_engine = new_engine
        self._needed = needed
        self._install = install
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="repair", daemon=True)
        self._thread.start()

    @property
    def works(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Makes no further attempt."""
        self._stop.set()

    def _work(self) -> None:
        pause = TICK_S
        while self._needed():
            engine = self._try(pause)
            if engine is None:
                self._failed()
                if self._stop.wait(pause):
                    return
                pause = min(2 * pause, LONGEST_PAUSE_S)
            elif not self._install(engine):
                engine.close()

    def _try(self, pause: float) -> Engine | None:
        """An engine that has shown that it works."""
        engine: Engine | None = None
        try:
            engine = self._new_engine()
            compute(engine, ())
        except Exception as problem:  # whatever the hardware's library raises
            logger.error("a new engine can't be had, next attempt in %.0f s: %s", pause, problem)
            if engine is not None:
                engine.close()
            return None
        return engine
