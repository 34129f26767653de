"""What an engine is: it runs batches of one model, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..types import Batch, Encoding, Output


@dataclass(frozen=True, slots=True)
class Capacity:
    """The batches that an engine is given."""

    streams: int
    """Batches that run side by side."""
    batch_tokens: int
    """Computed tokens of a batch above which larger batches gain nothing."""


TRIAL_LENGTH = 32
"""Tokens of the texts that are measured."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What is run to measure an engine's capacity."""

    sizes: tuple[int, ...] = ()
    """Computed tokens of the batches that are compared, ascending."""
    length: int = TRIAL_LENGTH
    """Tokens of each of their texts."""


class Engine(Protocol):
    """One model, compiled for one kind of hardware."""

    name: str
    """Of its kind, as `/info` shows it."""
    dtype: str
    """What it computes in."""
    dimensions: int
    """Width `D` of the pooled vectors."""
    vocabulary: int
    """How many token ids there are."""
    cores: int
    """CPU cores it may use, all streams together."""
    capacity: Capacity
    """What it does well with before anything is measured; `streams` is the most it can."""
    trials: Trials
    """What is worth measuring."""

    def arrange(self, encodings: list[Encoding]) -> Batch:
        """The encodings in the layout this engine runs."""
        ...

    def cost(self, longest: int, count: int, tokens: int) -> int:
        """Tokens it computes for `count` sequences of `tokens` tokens in all, the longest of `longest`."""
        ...

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        """Run one batch and wait for it; called from several threads at once.

        tokens: what each token gets is wanted too; cores: so many may be used for this batch, None for all of them.
        Raises whatever the hardware's library raises, MemoryError where there is too little memory for the batch.
        """
        ...

    def prepare(self, streams: int) -> None:
        """Wait until so many batches can run side by side, and give back what only more would need."""
        ...

    def close(self) -> None:
        """Give back memory and threads; no batch may be running."""
        ...


def check_lengths(encodings: list[Encoding], longest: int) -> None:
    """Raises ValueError for a sequence that the model has no positions for: their values would be anything."""
    if (length := max(map(len, encodings))) > longest:
        raise ValueError(f"a sequence has {length} tokens, the model takes {longest}")


def share_of_cores(engine: Engine, streams: int) -> int:
    """Cores for each of so many batches that run side by side, at least one."""
    return max(1, engine.cores // streams)
