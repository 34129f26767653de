"""The threads of engines: each runs batches of one slot until there are no more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..telemetry.throttle import ErrorLog
from .slots import Flight, Slot

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""After an error of ours a thread goes on."""


class Workers:
    """Threads by slot. A slot has one more than its engine has streams: it forms the next batch while those run."""

    def __init__(
        self,
        take: Callable[[Slot], Flight | None],
        run: Callable[[Flight], None],
        ended: Callable[[Slot], None],
    ) -> None:
        """take: waits for a batch, None for the end; run: it; ended: the last thread of a slot has nothing to do."""
        self._take = take
        self._run = run
        self._ended = ended
        self._errors = ErrorLog(logger)
        self._lock = threading.Lock()
        self._threads: dict[Slot, list[threading.Thread]] = {}  # those that have not ended

    @property
    def slots(self) -> int:
        """Slots of which a thread has not ended."""
        return len(self._threads)

    def start(self, slot: Slot) -> None:
        """Starts the threads of a slot. Raises RuntimeError where none can be started."""
        wanted = slot.capacity.streams + 1
        with self._lock:
            threads = self._threads[slot] = []
            try:
                for number in range(wanted):
                    name = f"engine-{number}"
                    thread = threading.Thread(target=self._work, args=(slot,), name=name, daemon=True)
                    thread.start()
                    threads.append(thread)
            except RuntimeError:
                if not threads:
                    del self._threads[slot]
                    raise
                self._errors.exception(f"an engine is served by {len(threads)} threads instead of {wanted}")

    def join(self) -> None:
        """Waits for the threads, but for those of slots in which one hangs."""
        with self._lock:
            threads = [thread for slot, own in self._threads.items() if not slot.hanging for thread in own]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _work(self, slot: Slot) -> None:
        while not self._run_next(slot):
            pass
        with self._lock:
            if len(self._threads[slot]) > 1:
                self._threads[slot].remove(threading.current_thread())
                return
        self._ended(slot)  # by the last thread, which `join` waits for
        with self._lock:
            del self._threads[slot]

    def _run_next(self, slot: Slot) -> bool:
        """One batch; True for the end. A function of its own: a thread that waits must not keep its last output."""
        try:
            flight = self._take(slot)
            if flight is None:
                return True
            self._run(flight)
        except Exception:  # a batch that was lost by it overruns its time: its inputs are answered then
            self._errors.exception("an engine's thread failed, and goes on")
            threading.Event().wait(PAUSE_S)
        return False
