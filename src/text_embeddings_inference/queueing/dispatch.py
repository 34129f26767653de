"""What waits, what runs and what is tried again: the queue and the batches in the engines, as a pure state machine.

It knows neither threads nor clocks, and of an engine only what a batch costs, so that any order of arrivals,
cancellations, failures, overruns, engines that come and go, and the end can be played through in the tests: every job
leaves it exactly once.

A batch that fails is halved until the input at fault is alone. Of a batch whose rows are NaN in part, those run again
without the others, and are halved if all are. A batch that does not end is taken apart at once: each hang costs a
deadline and an engine, so there is at most one more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from ..engines.base import share_of_cores
from .jobs import Job
from .scheduler import Scheduler
from .slots import Flight, Slot, State


class Dispatch:
    """The jobs of one model, and the engines that run them side by side.

    A flight that was taken is reported once: by `finished` or `failed`, or by `late_return` if it was lost.
    """

    def __init__(self, *, max_entries: int | None = None) -> None:
        """max_entries: inputs of a batch, None or 0 for no limit."""
        self.scheduler: Scheduler[Job] = Scheduler(max_entries=max_entries)
        self.slots: list[Slot] = []
        """All whose engines may have something to report."""
        self.wanted = 0
        """So many slots should serve."""
        self._again: deque[list[Job]] = deque()  # batches that are tried again, before all that waits

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self.scheduler) + sum(map(len, self._again))

    @property
    def serving(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.state is State.SERVING]

    @property
    def missing(self) -> int:
        """So many engines fewer serve than should."""
        return self.wanted - len(self.serving)

    @property
    def running(self) -> int:
        """Batches in the engines, but for those that are lost."""
        return sum(len(slot.running) for slot in self.slots)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not (self._again or len(self.scheduler) or self.running)

    @property
    def healthy(self) -> bool:
        """Whether an engine serves that can be trusted."""
        return any(slot.healthy for slot in self.slots)

    @property
    def idle_streams(self) -> int:
        return sum(slot.idle_streams for slot in self.slots)

    # --- in -------------------------------------------------------------------------------------------------------

    def add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.scheduler.add(job)

    def drop_cancelled(self) -> list[Job]:
        """Takes out what waits and was cancelled."""
        dropped = self.scheduler.drop_cancelled()
        dropped += [job for jobs in self._again for job in jobs if job.cancelled]
        kept = [[job for job in jobs if not job.cancelled] for jobs in self._again]
        self._again = deque(jobs for jobs in kept if jobs)
        return dropped

    # --- to an engine ---------------------------------------------------------------------------------------------

    def take(self, slot: Slot) -> Flight | None:
        """The next batch for this engine, if one may start now.

        Beside those it runs side by side, one more may wait inside of it: a full one, while no other engine is idle.
        """
        if slot.state is not State.SERVING or not (slot.idle_streams or self._may_wait_inside(slot)):
            return None
        is_new = False
        if self._again:
            jobs = self._take_again(slot)
        elif slot.canary_due:
            slot.canary_due, jobs = False, []
        else:
            jobs = self.scheduler.next_batch(slot.engine.cost, slot.budget.tokens, max(1, self.idle_streams))
            if not jobs:
                return None
            is_new = True
        is_alone = not (slot.running or len(self))
        cores = None if is_alone else share_of_cores(slot.engine, slot.capacity.streams)
        tokens = slot.cost(jobs)
        flight = Flight(slot, jobs, tokens, cores, slot.deadlines.allowed(tokens), is_new)
        slot.running.append(flight)
        return flight

    def _may_wait_inside(self, slot: Slot) -> bool:
        is_full = self.scheduler.waiting_tokens >= slot.budget.tokens
        return len(slot.running) == slot.capacity.streams and is_full and not self.idle_streams

    def _take_again(self, slot: Slot) -> list[Job]:
        """A batch that is tried again, or as much of it as this engine can take."""
        jobs = self._again.popleft()
        count = len(jobs)
        while count > 1 and slot.cost(jobs[:count]) > slot.budget.tokens:
            count //= 2
        if count < len(jobs):
            self._again.appendleft(jobs[count:])
        return jobs[:count]

    # --- and back -------------------------------------------------------------------------------------------------

    def finished(self, flight: Flight, seconds: float, spoilt: Collection[Job] = ()) -> list[Job]:
        """A batch was computed: the jobs whose rows stand. spoilt: those with a NaN in theirs; alone, it is theirs."""
        slot = flight.slot
        slot.leave(flight)
        slot.deadlines.measured(flight.tokens, seconds)
        if not spoilt:
            if slot.state is State.SERVING:
                slot.trust()
        elif len(flight.jobs) <= 1:
            slot.doubt(flight)
        else:
            self._try_again(flight, [job for job in flight.jobs if job in spoilt])
            return [job for job in flight.jobs if job not in spoilt]
        return list(flight.jobs)

    def failed(self, flight: Flight, *, out_of_memory: bool = False) -> list[Job]:
        """The engine raised: the jobs to be answered with that error. Those of a larger batch are tried again."""
        slot = flight.slot
        slot.leave(flight)
        if len(flight.jobs) <= 1:
            slot.doubt(flight)
            return list(flight.jobs)
        if out_of_memory:
            slot.budget.ran_out(flight.tokens)
        self._try_again(flight, list(flight.jobs))
        return []

    def late_return(self, flight: Flight) -> bool:
        """A lost flight came back after all. Whether its engine serves again, for want of another."""
        slot = flight.slot
        slot.hanging -= 1
        if slot.state is not State.SUSPENDED or slot.hanging or not self.missing:
            return False
        slot.state = State.SERVING
        slot.trust()
        return True

    def _try_again(self, flight: Flight, jobs: list[Job]) -> None:
        """Some jobs of a flight together, or all of them in halves."""
        middle = len(jobs) if len(jobs) < len(flight.jobs) else len(jobs) // 2
        parts = [[job for job in part if not job.cancelled] for part in (jobs[middle:], jobs[:middle])]
        self._again.extendleft(part for part in parts if part)

    # --- time, engines, and the end -------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> list[Flight]:
        """The batches that have overrun. Jobs of larger ones will each run alone; a single one is to be answered."""
        overrun = [flight for slot in self.slots for flight in slot.pass_time(seconds)]
        for flight in overrun:
            if len(flight.jobs) > 1:
                self._again.extend([job] for job in flight.jobs if not job.cancelled)
        return overrun

    def add_slot(self, slot: Slot) -> None:
        """An engine comes into service, in the place of one that is suspended if there is one."""
        suspended = [old for old in self.slots if old.state is State.SUSPENDED]
        if suspended:
            suspended[0].stop(State.RETIRED)
        self.slots.append(slot)

    def clear(self) -> list[Job]:
        """Takes out all jobs that wait."""
        jobs = [job for part in self._again for job in part] + self.scheduler.clear()
        self._again.clear()
        return jobs

    def abandon(self) -> list[Job]:
        """Takes out the jobs that are in the engines: their flights are lost."""
        flights = [flight for slot in self.slots for flight in slot.running]
        for flight in flights:
            flight.slot.lose(flight)
        return [job for flight in flights for job in flight.jobs]
