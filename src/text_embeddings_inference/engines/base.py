"""What an engine is: it runs batches of one model, and nothing else."""

from __future__ import annotations

from typing import Protocol

from ..types import Batch, Encoding, Output


class Engine(Protocol):
    """One model, compiled for one kind of hardware.

    name: `openvino`, `torch`; dtype: what it computes in; dimensions: width `D` of the pooled vectors; vocabulary: how
    many token ids there are; streams: how many batches it can run side by side; batch_tokens: computed tokens of a
    batch above which larger batches gain nothing.
    """

    name: str
    dtype: str
    dimensions: int
    vocabulary: int
    streams: int
    batch_tokens: int

    def arrange(self, encodings: list[Encoding]) -> Batch:
        """The encodings in the layout this engine runs."""
        ...

    def cost(self, longest: int, count: int, tokens: int) -> int:
        """Tokens it computes for `count` sequences of `tokens` tokens in all, the longest of `longest`."""
        ...

    def run(self, batch: Batch, *, tokens: bool, alone: bool) -> Output:
        """Run one batch and wait for it; called from several threads at once.

        tokens: the last hidden states are wanted; alone: nothing else is running or waiting, so the batch may have all
        cores. Raises whatever the hardware's library raises.
        """
        ...

    def tune_batch_tokens(self, seconds: float) -> None:
        """Measure for at most so long, and set `batch_tokens`. Raises InterruptedError where other batches ran."""
        ...

    def tune_streams(self, seconds: float) -> None:
        """Measure for at most so long, and set `streams` to 1 if more gain nothing. Raises InterruptedError too."""
        ...

    def close(self) -> None:
        """Give back memory and threads; no batch may be running."""
        ...
