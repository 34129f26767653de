"""What waits, what runs and what is tried again: the queue and the batches in the engine, as a pure state machine.

It knows neither threads nor clocks nor the engine, so that any order of arrivals, cancellations, failures, overruns and
the end can be played through in the tests: every job leaves it exactly once.

A batch that fails is halved until the input at fault is alone. Of a batch whose rows are NaN in part, those run again
without the others, and are halved if all are. A batch that does not end is taken apart at once: each hang costs a
deadline and an engine, so there is at most one more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ..settings import BatchLimits
from .budget import Budget, Deadlines
from .jobs import Job
from .scheduler import Cost, Scheduler

CANARY_EVERY_S = 1.0
"""How often an engine that failed on one token is asked again."""
GIVE_UP_AFTER = 3
"""So many canaries in a row that fail, and the engine is replaced."""


@dataclass(slots=True, eq=False)
class Flight:
    """A batch in the engine; a canary, if it has no jobs.

    tokens: computed; alone: nothing else runs or waits; left: seconds it may still take; is_new: none of it ran before;
    behind: its engine was given up; lost: it overran, or the end came: its jobs went elsewhere, and nobody waits for
    what it may still give.
    """

    jobs: Sequence[Job]
    tokens: int
    alone: bool
    left: float
    is_new: bool
    behind: bool = False
    lost: bool = False

    @property
    def is_canary(self) -> bool:
        return not self.jobs


@dataclass(slots=True)
class Dispatch:
    """The jobs of one model. A flight that was taken is reported once, by `landed` or `crashed`, unless it is lost.

    healthy: no canary failed and no batch overran since a batch went well.
    """

    scheduler: Scheduler[Job]
    budget: Budget
    deadlines: Deadlines
    healthy: bool = True
    _again: deque[list[Job]] = field(default_factory=deque)
    """Batches that are tried again, before all that waits."""
    _running: list[Flight] = field(default_factory=list)
    _left_behind: list[Flight] = field(default_factory=list)
    """In an engine that was given up."""
    _streams: int = 1
    _canary_due: bool = False
    _failed_canaries: int = 0
    _since_canary: float = 0.0

    @staticmethod
    def of(cost: Cost, limits: BatchLimits, deadlines: Deadlines, *, batch_tokens: int) -> Dispatch:
        budget = Budget(min(batch_tokens, limits.token_limit))
        scheduler: Scheduler[Job] = Scheduler(cost, max_tokens=budget.tokens, max_entries=limits.max_batch_requests)
        return Dispatch(scheduler, budget, deadlines)

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self.scheduler) + sum(map(len, self._again))

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not (self._running or self._left_behind or self._again or len(self.scheduler))

    @property
    def is_broken(self) -> bool:
        """Whether the engine fails on a single token, again and again."""
        return self._failed_canaries >= GIVE_UP_AFTER

    @property
    def canary_due(self) -> bool:
        return self._canary_due

    def set_budget(self, tokens: int) -> None:
        self.budget.full = tokens
        self.scheduler.max_tokens = self.budget.tokens

    # --- in -------------------------------------------------------------------------------------------------------

    def add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.scheduler.add(job)

    def drop_cancelled(self) -> list[Job]:
        """Takes out what waits and nobody waits for any more."""
        dropped = self.scheduler.drop_cancelled()
        dropped += [job for jobs in self._again for job in jobs if job.cancelled]
        kept = [[job for job in jobs if not job.cancelled] for jobs in self._again]
        self._again = deque(jobs for jobs in kept if jobs)
        return dropped

    # --- to the engine --------------------------------------------------------------------------------------------

    def take(self, streams: int) -> Flight | None:
        """The next batch, if one may start now.

        streams: how many the engine runs side by side. One more may wait inside of it, but only a full one.
        """
        self._streams = streams
        ahead = len(self._running) == streams and self.scheduler.waiting_tokens >= self.scheduler.max_tokens
        if len(self._running) >= streams and not ahead:
            return None
        is_new = False
        if self._again:
            jobs = self._again.popleft()
        elif self._canary_due:
            self._canary_due, jobs = False, []
        else:
            jobs = self.scheduler.next_batch(max(1, streams - len(self._running)))
            if not jobs:
                return None
            is_new = True
        lengths = [job.length for job in jobs] or [1]
        tokens = self.scheduler.cost(max(lengths), len(lengths), sum(lengths))
        alone = not (self._running or self._again or len(self.scheduler))
        flight = Flight(jobs, tokens, alone, self.deadlines.allowed(tokens), is_new)
        self._running.append(flight)
        return flight

    # --- and back -------------------------------------------------------------------------------------------------

    def landed(self, flight: Flight, seconds: float, spoilt: Collection[Job] = ()) -> list[Job]:
        """A batch was computed: the jobs whose rows stand. spoilt: those with a NaN in theirs; alone, it is theirs."""
        self._leave(flight)
        self.deadlines.measured(flight.tokens, seconds)
        if not spoilt:
            self._went_well(flight)
        elif len(flight.jobs) <= 1:
            self._went_wrong(flight)
        else:
            self._try_again(flight, [job for job in flight.jobs if job in spoilt])
            return [job for job in flight.jobs if job not in spoilt]
        return list(flight.jobs)

    def crashed(self, flight: Flight, *, out_of_memory: bool = False) -> list[Job]:
        """The engine raised: the jobs to be answered with that error. Those of a larger batch are tried again."""
        self._leave(flight)
        if len(flight.jobs) > 1:
            if out_of_memory:
                self.budget.ran_out(flight.tokens)
                self.scheduler.max_tokens = self.budget.tokens
            self._try_again(flight, list(flight.jobs))
            return []
        self._went_wrong(flight)
        return list(flight.jobs)

    def _leave(self, flight: Flight) -> None:
        assert not flight.lost, "what a lost flight gives is for nobody"
        (self._left_behind if flight.behind else self._running).remove(flight)

    def _try_again(self, flight: Flight, jobs: list[Job]) -> None:
        """Some jobs of a flight together, or all of them in halves."""
        middle = len(jobs) if len(jobs) < len(flight.jobs) else len(jobs) // 2
        parts = [[job for job in part if not job.cancelled] for part in (jobs[middle:], jobs[:middle])]
        self._again.extendleft(part for part in parts if part)

    def _went_well(self, flight: Flight) -> None:
        if not flight.behind:
            self.trust()

    def _went_wrong(self, flight: Flight) -> None:
        """With one input alone: was it the input or is it the engine?"""
        if flight.behind:
            return
        if flight.is_canary:
            self.healthy = False
            self._failed_canaries += 1
            self._since_canary = 0.0
        else:
            self._canary_due = True

    def trust(self) -> None:
        """The engine in service has just shown that it works."""
        self.healthy, self._canary_due, self._failed_canaries = True, False, 0

    # --- time and the end -----------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> list[Flight]:
        """The batches that have overrun. Jobs of larger ones will each run alone; a single one is to be answered."""
        self.budget.pass_time(seconds)
        self.scheduler.max_tokens = self.budget.tokens
        self._since_canary += seconds
        if self._failed_canaries and self._since_canary >= CANARY_EVERY_S:
            self._canary_due = True
        flights = [*self._running[: self._streams], *self._left_behind]  # what waits inside for a stream has time
        for flight in flights:
            flight.left -= seconds
        overrun = [flight for flight in flights if flight.left <= 0]
        for flight in overrun:
            self._leave(flight)
            flight.lost = True
            self.healthy = self.healthy and flight.behind
            if len(flight.jobs) > 1:
                self._again.extend([job] for job in flight.jobs if not job.cancelled)
        return overrun

    def serve(self, cost: Cost, batch_tokens: int) -> None:
        """An engine that works is in service."""
        self.scheduler.cost = cost
        self.set_budget(batch_tokens)
        self.trust()

    def leave_behind(self) -> None:
        """The engine was given up: what runs in it may still land, and does not count as running in the next one."""
        for flight in self._running:
            flight.behind = True
        self._left_behind += self._running
        self._running.clear()
        self._canary_due, self._failed_canaries, self.healthy = False, 0, False

    def clear(self, *, flying: bool = False) -> list[Job]:
        """Takes out all jobs that wait; flying: those in the engine too, whose flights are lost."""
        jobs = [job for part in self._again for job in part]
        self._again.clear()
        while batch := self.scheduler.next_batch():
            jobs += batch
        if flying:
            for flight in (*self._running, *self._left_behind):
                flight.lost = True
                jobs += flight.jobs
            self._running.clear()
            self._left_behind.clear()
        return jobs
