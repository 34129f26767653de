"""What an engine is trusted with: how long a batch may take, how large it may be, and how its errors are read."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..types import Float32Array

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
OUT_OF_MEMORY = ("out of memory", "bad_alloc", "not enough memory", "failed to allocate", "cannot allocate memory")
"""What the errors of OpenVINO, oneDNN, CUDA and the system say, in lower case."""


class Deadlines(Protocol):
    """How long a batch may take."""

    def allowed(self, tokens: int) -> float:
        """Seconds for a batch of so many computed tokens."""
        ...

    def measured(self, tokens: int, seconds: float) -> None:
        """A batch took so long."""
        ...


class FixedDeadline:
    """The same for all batches."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def allowed(self, tokens: int) -> float:
        return self._seconds

    def measured(self, tokens: int, seconds: float) -> None:
        """Measurements change a fixed deadline in no way."""


class MeasuredDeadline:
    """Many times what such a batch usually takes."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def allowed(self, tokens: int) -> float:
        if not self._tokens:
            return FIRST_DEADLINE_S
        return max(SHORTEST_DEADLINE_S, DEADLINE_FACTOR * tokens * self._seconds / self._tokens)

    def measured(self, tokens: int, seconds: float) -> None:
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


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an engine's error says that there was too little memory: a smaller batch may fit."""
    text = str(problem).lower()
    named = type(problem).__name__ == "OutOfMemoryError"  # PyTorch's, which is not imported for it
    return isinstance(problem, MemoryError) or named or any(part in text for part in OUT_OF_MEMORY)


def has_nan(values: Float32Array) -> bool:
    """In one pass without a copy: the minimum of what has a NaN is NaN."""
    return values.size > 0 and bool(np.isnan(values.min()))
