"""Deadlines, and engines made in place of those that hang or are broken: two threads beside those of the engines."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable

from ..engines.base import Engine
from ..telemetry.throttle import ErrorLog
from .batch import compute
from .shared import Shared
from .slots import Slot, State

logger = logging.getLogger(__name__)

TOO_LONG = "the engine took too long for this input"
NO_ENGINE = "the engine does not answer: see the server's log"

TICK_S = 1.0
"""How often deadlines are looked at."""
LONGEST_TICK_S = 2.0
"""More time than this does not pass between two looks: the process was stopped, not the engine."""
LONGEST_PAUSE_S = 60.0
"""Between two attempts to make an engine."""
LONGEST_RECOVERY_S = 600.0
"""So long requests wait for a new engine."""
LONGEST_EXIT_S = 60.0
"""So long the interpreter waits at its end for an engine that is being made."""
MOST_HANGING = 3
"""Engines in which threads hang, each with its memory and its busy cores; with more, no other is made."""


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


class Recovery:
    """Has an engine made whenever fewer serve than should; looked at with every tick, so that nothing is missed.

    They are made in a thread that `close` does not wait for: that can take minutes, or hang too.
    """

    def __init__(
        self,
        shared: Shared,
        new_engine: Callable[[], Engine] | None,
        open_slot: Callable[[Engine], None],
    ) -> None:
        """new_engine: may raise, None if no other can be made; open_slot: takes an engine into service, may raise."""
        self._shared = shared
        self._dispatch = shared.dispatch
        self._new_engine = new_engine
        self._open_slot = open_slot
        self._waited_s = 0.0  # since an engine served last
        self._gave_up = False
        self._errors = ErrorLog(logger)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watchdog = Watchdog(self.tick)

    def close(self) -> None:
        """Makes no further attempt."""
        self._stop.set()
        self._watchdog.close()

    @property
    def works(self) -> bool:
        """Whether an engine is being made."""
        return self._thread is not None and self._thread.is_alive()

    def tick(self, seconds: float) -> None:
        """So much time has passed: gives up what overran."""
        with self._shared.changing():
            overrun = self._dispatch.pass_time(seconds)
            for flight in overrun:
                logger.error("a batch of %d tokens did not end in time", flight.tokens)
                if len(flight.jobs) == 1:
                    self._shared.refuse(flight.jobs, TOO_LONG)
            self._waited_s = 0.0 if self._dispatch.serving else self._waited_s + seconds
            self.recover()
            if overrun or any(slot.canary_due for slot in self._dispatch.slots):
                self._shared.changed.notify_all()

    def replace_if_broken(self, slot: Slot) -> None:
        """Takes an engine that fails on a single token, again and again, out of service; with the lock held."""
        if slot.is_broken and self._new_engine is not None:
            slot.stop(State.RETIRED)
            self.recover()

    def recover(self) -> None:
        """Has another engine made where one is missing; with the lock held. What waits is refused if there is none."""
        if self.needs_engine() and (not self._begin() or self._waited_s > LONGEST_RECOVERY_S):
            self._fail_waiting()

    def _begin(self) -> bool:
        """Whether an engine is being made, already or from now on."""
        if self._too_many_hang() or self._new_engine is None:
            return False
        if self.works or self._stop.is_set():
            return True
        thread = threading.Thread(target=self._work, args=(self._new_engine,), name="recovery", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._errors.exception("no thread can be started that makes another engine, next attempt in a second")
            return False
        self._thread = thread
        atexit.register(self._end)  # before the thread can end, which needs the lock
        logger.warning("the engine is replaced")
        return True

    def _too_many_hang(self) -> bool:
        too_many = sum(slot.hanging > 0 for slot in self._dispatch.slots) > MOST_HANGING
        if too_many and not self._gave_up:
            logger.critical("too many engines hang: no other is made; restart the server")
        self._gave_up = too_many
        return too_many

    def _fail_waiting(self) -> None:
        """Unless an engine serves, requests do not wait for one any more."""
        if not self._dispatch.serving:
            self._shared.unavailable = True
            self._shared.changed.notify_all()
            self._shared.refuse(self._dispatch.clear(), NO_ENGINE)

    # --- the thread that makes engines ----------------------------------------------------------------------------

    def _work(self, new_engine: Callable[[], Engine]) -> None:
        pause = TICK_S
        try:
            while not self._stop.is_set():
                try:
                    if not self.needs_engine():
                        return
                    if self._attempt(new_engine, pause):
                        pause = TICK_S
                        continue
                    self.not_recovered()
                except Exception:
                    self._errors.exception("the making of an engine went wrong, next attempt follows")
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            atexit.unregister(self._end)

    def _end(self) -> None:
        """The interpreter ends: no thread may be in native code then. A child of a fork has no such thread."""
        if self._thread is not None and self._thread.is_alive():
            self._stop.set()
            self._thread.join(LONGEST_EXIT_S)

    def _attempt(self, new_engine: Callable[[], Engine], pause: float) -> bool:
        """Whether there is another engine, which has shown that it works, or none is needed any more."""
        engine: Engine | None = None
        try:
            engine = new_engine()
            compute(engine, ())
            if not self.install(engine):
                engine.close()
        except BaseException as problem:  # whatever the hardware's library raises; a panic of Rust is no Exception
            logger.error("a new engine can't be had, next attempt in %.0f s: %s", pause, problem)
            if engine is not None:
                engine.close()
            return False
        return True

    def needs_engine(self) -> bool:
        """Whether fewer serve than should."""
        with self._shared.changed:
            return self._dispatch.missing > 0 and not (self._shared.closed and self._dispatch.idle)

    def install(self, engine: Engine) -> bool:
        """Takes a new engine into service, unless none is needed any more; whether it did. It may raise."""
        with self._shared.changing():
            is_needed = self.needs_engine()
            if is_needed:
                self._open_slot(engine)
        return is_needed

    def not_recovered(self) -> None:
        """An attempt failed."""
        with self._shared.changing():
            self._fail_waiting()
