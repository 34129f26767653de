"""An engine in service: the batches in it, how large and how long they may be, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ..engines.base import Capacity, Engine
from ..settings.limits import BatchLimits
from .jobs import Job

CANARY_EVERY_S = 1.0
"""How often an engine that failed on one token is asked again."""
BROKEN_AFTER_CANARIES = 3
"""So many canaries in a row that fail, and the engine is taken to be broken."""
SHORTEST_DEADLINE_S = 30.0
"""No batch is given up sooner, for the machine may be busy with something else."""
DEADLINE_FACTOR = 20
"""A batch may take so many times what its tokens took on average so far."""
FIRST_DEADLINE_S = 600.0
"""What the first batch may take, as long as nothing is known of the engine."""
AVERAGE_DECAY = 0.98
"""What the average keeps of the past with every batch: it follows the last fifty."""
LOWERED_S = 60.0
"""After so long without running out of memory, batches may be twice as large again."""


class Deadlines:
    """How long a batch may take: what was set, or many times what such a batch usually takes."""

    def __init__(self, fixed: float | None) -> None:
        """fixed: seconds, None for what is measured."""
        self._fixed = fixed
        self._tokens = 0.0
        self._seconds = 0.0

    def allowed(self, tokens: int) -> float:
        """Seconds for a batch of so many computed tokens."""
        if self._fixed is not None:
            return self._fixed
        if not self._tokens:
            return FIRST_DEADLINE_S
        return max(SHORTEST_DEADLINE_S, DEADLINE_FACTOR * tokens * self._seconds / self._tokens)

    def measured(self, tokens: int, seconds: float) -> None:
        """A batch took so long."""
        self._tokens = AVERAGE_DECAY * self._tokens + tokens
        self._seconds = AVERAGE_DECAY * self._seconds + seconds


class TokenBudget:
    """Computed tokens that a batch may have: less for a while after the memory ran out."""

    def __init__(self, tokens: int) -> None:
        self.full = tokens
        self._lowered: int | None = None
        self._left = 0.0

    @property
    def tokens(self) -> int:
        return self.full if self._lowered is None else min(self.full, self._lowered)

    def ran_out(self, tokens: int) -> None:
        """There was no memory for a batch of so many."""
        self._lowered = max(1, min(tokens, self.tokens) // 2)
        self._left = LOWERED_S

    def pass_time(self, seconds: float) -> None:
        if self._lowered is None:
            return
        self._left -= seconds
        if self._left <= 0:
            self._lowered, self._left = 2 * self._lowered, LOWERED_S
            if self._lowered >= self.full:
                self._lowered = None


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

    @property
    def length(self) -> int:
        """Tokens of all its inputs."""
        return sum(job.length for job in self.jobs)


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
    """It serves, and no canary failed and no batch overran since a batch went well."""
    canary_due: bool = False
    """The engine is to be asked for a single token."""
    _failed_canaries: int = 0
    _since_canary: float = 0.0

    @staticmethod
    def of(engine: Engine, capacity: Capacity, limits: BatchLimits) -> Slot:
        budget = TokenBudget(min(capacity.batch_tokens, limits.token_limit))
        return Slot(engine, capacity, budget, Deadlines(limits.batch_timeout))

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
