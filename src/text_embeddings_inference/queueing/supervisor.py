"""Deadlines, and engines that hang or are broken: when another is made, and how long requests wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..engines.base import Engine
from ..telemetry.throttle import ErrorLog
from .jobs import JobGroup
from .recovery import Recovery, Watchdog
from .shared import Shared
from .slots import Slot

logger = logging.getLogger(__name__)

TOO_LONG = "the engine took too long for this input"
NO_ENGINE = "the engine does not answer: see the server's log"

LONGEST_RECOVERY_S = 600.0
"""So long requests wait for a new engine."""
MOST_HANGING = 3
"""Engines in which threads hang, each with its memory and its busy cores; with more, no other is made."""


class Supervisor:
    """Has an engine made whenever fewer serve than should; looked at with every tick, so that nothing is missed."""

    def __init__(
        self,
        shared: Shared,
        new_engine: Callable[[], Engine] | None,
        open_slot: Callable[[Engine], None],
    ) -> None:
        """new_engine: may raise, None if no other can be made; open_slot: takes an engine into service, may raise."""
        self._shared = shared
        self._dispatch = shared.dispatch
        self._open_slot = open_slot
        self._recovery = None if new_engine is None else Recovery(new_engine, self)
        self._waited_s = 0.0  # since an engine served last
        self._errors = ErrorLog(logger)
        self._gave_up = False
        self._watchdog = Watchdog(self.tick)

    def close(self) -> None:
        if self._recovery is not None:
            self._recovery.stop()
        self._watchdog.close()

    @property
    def works(self) -> bool:
        """Whether an engine is being made."""
        return self._recovery is not None and self._recovery.works

    def tick(self, seconds: float) -> None:
        """So much time has passed: gives up what overran."""
        with self._shared.changing() as done:
            overrun = self._dispatch.pass_time(seconds)
            for flight in overrun:
                logger.error("a batch of %d tokens did not end in time", flight.tokens)
                if len(flight.jobs) == 1:
                    done += self._shared.refuse(flight.jobs, TOO_LONG)
            self._waited_s = 0.0 if self._dispatch.serving else self._waited_s + seconds
            done += self.recover()
            if overrun or any(slot.canary_due for slot in self._dispatch.slots):
                self._shared.changed.notify_all()

    def replace_if_broken(self, slot: Slot) -> list[JobGroup]:
        """Takes an engine that fails on a single token, again and again, out of service; what is answered by that."""
        if not slot.is_broken or self._recovery is None:
            return []
        self._dispatch.retire(slot)
        return self.recover()

    def recover(self) -> list[JobGroup]:
        """Has another engine made where one is missing; what is answered because there is none, with the lock held."""
        if not self.needs_engine():
            return []
        if self._too_many_hang() or self._recovery is None:
            return self._fail_waiting()
        try:
            if not self.works:
                self._recovery.start()
                logger.warning("the engine is replaced")
        except RuntimeError:
            self._errors.exception("no thread can be started that makes another engine, next attempt in a second")
            return self._fail_waiting()
        return self._fail_waiting() if self._waited_s > LONGEST_RECOVERY_S else []

    def _too_many_hang(self) -> bool:
        too_many = sum(slot.hanging > 0 for slot in self._dispatch.slots) > MOST_HANGING
        if too_many and not self._gave_up:
            logger.critical("too many engines hang: no other is made; restart the server")
        self._gave_up = too_many
        return too_many

    def _fail_waiting(self) -> list[JobGroup]:
        """Unless an engine serves, requests do not wait for one any more."""
        if self._dispatch.serving:
            return []
        self._shared.unavailable = True
        self._shared.changed.notify_all()
        return self._shared.refuse(self._dispatch.clear(), NO_ENGINE)

    # --- asked by the recovery ------------------------------------------------------------------------------------

    def needs_engine(self) -> bool:
        with self._shared.changed:
            return self._dispatch.missing > 0 and not (self._shared.closed and self._dispatch.idle)

    def install(self, engine: Engine) -> bool:
        with self._shared.changing():
            is_needed = self.needs_engine()
            if is_needed:
                self._open_slot(engine)
        return is_needed

    def not_recovered(self) -> None:
        with self._shared.changing() as done:
            done += self._fail_waiting()
