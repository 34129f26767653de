"""Two threads beside those of the engines: one that looks at deadlines, and one that makes another engine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..engines.base import Engine
from ..telemetry.throttle import ErrorLog
from .batch import compute

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""How often deadlines are looked at."""
LONGEST_TICK_S = 2.0
"""More time than this does not pass between two looks: the process was stopped, not the engine."""
LONGEST_PAUSE_S = 60.0
"""Between two attempts to make an engine."""


class Watchdog:
    """Says how much time has passed, about once a second, whatever happens."""

    def __init__(self, tick: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        """tick: given the seconds since it was called last; time in which the process did not run is left out."""
        self._tick = tick
        self._clock = clock
        self._errors = ErrorLog(logger)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        last = self._clock()
        while not self._stop.wait(TICK_S):
            now = self._clock()
            try:
                self._tick(min(now - last, LONGEST_TICK_S))
            except Exception:
                self._errors.exception("deadlines could not be looked at, next attempt in a second")
            last = now


class Service(Protocol):
    """What engines are made for."""

    def needs_engine(self) -> bool:
        """Whether fewer serve than should."""
        ...

    def install(self, engine: Engine) -> bool:
        """Takes a new engine into service, unless none is needed any more; whether it did. It may raise."""
        ...

    def not_recovered(self) -> None:
        """An attempt failed."""
        ...


class Recovery:
    """Makes engines until enough serve, in a thread that is not waited for: that can take minutes, or hang too."""

    def __init__(self, new_engine: Callable[[], Engine], service: Service) -> None:
        """new_engine: may raise."""
        self._new_engine = new_engine
        self._service = service
        self._errors = ErrorLog(logger)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def works(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begins, unless it works already. Raises RuntimeError where no thread can be started."""
        if not self.works and not self._stop.is_set():
            thread = threading.Thread(target=self._work, name="recovery", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Makes no further attempt."""
        self._stop.set()

    def _work(self) -> None:
        pause = TICK_S
        while not self._stop.is_set():
            try:
                if not self._service.needs_engine():
                    return
                if self._attempt(pause):
                    pause = TICK_S
                    continue
                self._service.not_recovered()
            except Exception:
                self._errors.exception("the making of an engine went wrong, next attempt follows")
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _attempt(self, pause: float) -> bool:
        """Whether there is another engine, which has shown that it works, or none is needed any more."""
        engine: Engine | None = None
        try:
            engine = self._new_engine()
            compute(engine, ())
            if not self._service.install(engine):
                engine.close()
        except BaseException as problem:  # whatever the hardware's library raises; a panic of Rust is no Exception
            logger.error("a new engine can't be had, next attempt in %.0f s: %s", pause, problem)
            if engine is not None:
                engine.close()
            return False
        return True
