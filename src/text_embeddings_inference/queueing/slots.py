"""An engine in service: the batches in it, what it is given, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ..engines.base import Capacity, Engine
from ..settings.limits import BatchLimits
from .budget import Deadlines, FixedDeadline, MeasuredDeadline, TokenBudget
from .jobs import Job

CANARY_EVERY_S = 1.0
"""How often an engine that failed on one token is asked again."""
BROKEN_AFTER_CANARIES = 3
"""So many canaries in a row that fail, and the engine is taken to be broken."""


class State(Enum):
    """Whether an engine is given batches."""

    SERVING = auto()
    SUSPENDED = auto()
    """None while a batch that overran has not returned; then again, unless another engine took its place."""
    RETIRED = auto()
    """Never again."""


@dataclass(slots=True, eq=False)
class Flight:
    """A batch in an engine; a canary, if it has no jobs."""

    slot: Slot
    jobs: Sequence[Job]
    tokens: int
    """Computed."""
    cores: int | None
    """That it may use, None for all of the engine's."""
    left: float
    """Seconds it may still take."""
    is_new: bool
    """Whether none of it has run before."""
    lost: bool = False
    """It overran, or the end came: its jobs went elsewhere, and what it may still give is dropped."""

    @property
    def is_canary(self) -> bool:
        return not self.jobs


@dataclass(slots=True, eq=False)
class Slot:
    """One engine and the batches in it."""

    engine: Engine
    capacity: Capacity
    budget: TokenBudget
    deadlines: Deadlines
    state: State = State.SERVING
    running: list[Flight] = field(default_factory=list)
    hanging: int = 0
    """Lost flights that have not returned: each keeps a thread."""
    healthy: bool = True
    """No canary failed and no batch overran since a batch went well."""
    canary_due: bool = False
    """The engine is to be asked for a single token."""
    _failed_canaries: int = 0
    _since_canary: float = 0.0

    @staticmethod
    def of(engine: Engine, capacity: Capacity, limits: BatchLimits) -> Slot:
        budget = TokenBudget(min(capacity.batch_tokens, limits.token_limit))
        deadlines = MeasuredDeadline() if limits.batch_timeout is None else FixedDeadline(limits.batch_timeout)
        return Slot(engine, capacity, budget, deadlines)

    def set_capacity(self, capacity: Capacity, limits: BatchLimits) -> None:
        """The engine was measured."""
        self.capacity = capacity
        self.budget.full = min(capacity.batch_tokens, limits.token_limit)

    @property
    def idle_streams(self) -> int:
        """Batches that could start now."""
        return max(0, self.capacity.streams - len(self.running)) if self.state is State.SERVING else 0

    @property
    def is_broken(self) -> bool:
        """Whether the engine fails on a single token, again and again."""
        return self._failed_canaries >= BROKEN_AFTER_CANARIES

    def cost(self, jobs: Sequence[Job]) -> int:
        """Tokens computed for these jobs in one batch; for a canary one."""
        lengths = [job.length for job in jobs] or [1]
        return self.engine.cost(max(lengths), len(lengths), sum(lengths))

    def leave(self, flight: Flight) -> None:
        """The batch came back."""
        assert not flight.lost, "a lost flight has no result"
        self.running.remove(flight)

    def lose(self, flight: Flight) -> None:
        """The batch is waited for no longer."""
        self.leave(flight)
        flight.lost = True
        self.hanging += 1

    def trust(self) -> None:
        """The engine has just shown that it works."""
        self.healthy, self.canary_due, self._failed_canaries = True, False, 0

    def doubt(self, flight: Flight) -> None:
        """It failed on one input, or on the canary: was it the input or is it the engine?"""
        if self.state is not State.SERVING:
            return
        if flight.is_canary:
            self.healthy = False
            self._failed_canaries += 1
            self._since_canary = 0.0
        else:
            self.canary_due = True

    def stop(self, state: State) -> None:
        """It is given no more batches; those in it may still come back."""
        self.state, self.healthy, self.canary_due, self._failed_canaries = state, False, False, 0

    def pass_time(self, seconds: float) -> list[Flight]:
        """The batches that overran in this time: they are lost, and the engine is suspended."""
        self.budget.pass_time(seconds)
        self._since_canary += seconds
        if self._failed_canaries and self._since_canary >= CANARY_EVERY_S:
            self.canary_due = True
        # What waits inside for a stream has time, as long as those before it come back.
        counted = self.running[: self.capacity.streams] if self.state is State.SERVING else list(self.running)
        for flight in counted:
            flight.left -= seconds
        overrun = [flight for flight in counted if flight.left <= 0]
        for flight in overrun:
            self.lose(flight)
        if overrun and self.state is State.SERVING:
            self.stop(State.SUSPENDED)
        return overrun
