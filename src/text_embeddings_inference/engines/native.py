"""The engine for CPUs that runs plans of our own kernels: packed batches, no padding, nothing to compile at the start."""

from __future__ import annotations

import ctypes as c
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..models.build import build
from ..native.formats import Formats
from ..native.library import CBatch, Level, load_library
from ..native.plan import Plan
from ..ops.native import NativeOps, inputs
from ..types import Batch, Encoding, Output, Pooling
from .measure import Stopwatch, best_batch

BATCH_TOKENS = 1024
TUNING_SIZES = (256, 512, 1024, 2048)
TUNING_LENGTH = 32
SPLADE_ELEMENTS = 1 << 25
"""SPLADE's logits are `[T, V]`: at most this many of them (128 MB)."""


class NativeEngine:
    """Runs packed batches on the CPU (see `base.Engine`).

    A batch that is alone has all threads; under load each caller's thread runs its own.
    """

    name = "native"

    def __init__(self, checkpoint: Checkpoint, *, library: Path, level: str, dtype: str, threads: int) -> None:
        """library: the built kernels; level: one that they have and this CPU runs.

        Raises UnsupportedError or CheckpointError where the checkpoint can't be built (`models.build.build`), and
        StartError where the kernels can't be loaded."""
        self.dtype = dtype
        self.streams = threads
        self._checkpoint = checkpoint
        self._library = load_library(library)
        network = build(checkpoint, ops := NativeOps())
        results = network.run(ops, inputs())
        nodes = results.pooled.raw, None if results.tokens is None else results.tokens.raw
        kernels = Level(self._library, level)
        self.plan = Plan(kernels, nodes, checkpoint.longest, Formats(kernels, dtype))
        self._hidden_width = None if nodes[1] is None else nodes[1].width
        self.dimensions = network.dimensions
        self.vocabulary = network.vocabulary
        self._tables = _table_rows(self.plan)
        self.batch_tokens = self._most_tokens = TUNING_SIZES[-1]
        if checkpoint.pooling is Pooling.SPLADE:
            self._most_tokens = max(1, SPLADE_ELEMENTS // network.vocabulary)
        self.batch_tokens = min(BATCH_TOKENS, self._most_tokens)
        self._engine = self._library.tei_open(kernels.pointer, c.byref(self.plan.raw))
        self._team = self._library.tei_team_new(threads) if threads > 1 else None
        self._runs = 0

    def arrange(self, encodings: list[Encoding]) -> Batch:
        return Batch.pack(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return tokens

    def run(self, batch: Batch, *, tokens: bool, alone: bool) -> Output:
        """See `base.Engine.run`. Raises MemoryError where there is too little for the batch, and ValueError for ids
        that the model does not have."""
        self._runs += 1
        self._check(batch)
        starts = np.zeros(len(batch.lengths) + 1, np.int32)
        np.cumsum(batch.lengths, out=starts[1:])
        pooled = np.empty((len(batch.lengths), self.dimensions), np.float32)
        hidden = np.empty((batch.tokens, self._hidden_width or 0), np.float32) if tokens else None
        if tokens and self._hidden_width is None:
            raise ValueError("this model gives no vectors of tokens")
        raw = CBatch(batch.tokens, len(batch.lengths), int(batch.lengths.max()))
        arrays = {"ids": batch.input_ids, "types": batch.type_ids, "starts": starts, "attended": batch.attended}
        kept = {name: np.ascontiguousarray(array, np.int32) for name, array in arrays.items() if array is not None}
        for name, array in {**kept, "pooled": pooled, "hidden": hidden}.items():
            setattr(raw, name, None if array is None else array.ctypes.data)
        problem = self._library.tei_run(self._engine, c.byref(raw), self._team if alone else None)
        if problem:
            raise MemoryError(f"a batch of {batch.tokens} tokens: {os.strerror(problem)}")
        return Output(pooled, hidden)

    def tune_batch_tokens(self, seconds: float) -> None:
        watch = Stopwatch(seconds)
        sizes = [size for size in TUNING_SIZES if size <= self._most_tokens]
        self.batch_tokens = best_batch(sizes, self._measure, watch, self.batch_tokens)

    def tune_streams(self, seconds: float) -> None:
        """A thread for each batch is never slower than threads that wait for each other."""

    def close(self) -> None:
        self._library.tei_close(self._engine)
        self._library.tei_team_free(self._team)
        self._engine = self._team = None
        self._checkpoint.weights.release()

    def _check(self, batch: Batch) -> None:
        """Raises ValueError for what would be read beyond an array."""
        lengths, longest = batch.lengths, self._checkpoint.longest
        _check_range("a length", lengths, 1, longest + 1)
        if not batch.is_packed or batch.tokens != batch.input_ids.size:
            raise ValueError("a batch for the native engine is packed")
        _check_range("a token id", batch.input_ids, 0, self._tables["input_ids"])
        if batch.type_ids is not None:
            if batch.type_ids.shape != batch.input_ids.shape:
                raise ValueError("each token has one type")
            if "type_ids" in self._tables:
                _check_range("a token type", batch.type_ids, 0, self._tables["type_ids"])
        if batch.attended is not None and not ((batch.attended >= 1) & (batch.attended <= lengths)).all():
            raise ValueError("the tokens attended are between 1 and the length")

    def _measure(self, tokens: int) -> float:
        """Seconds for a batch of so many tokens."""
        batch = self.arrange([Encoding(np.ones(TUNING_LENGTH, np.int32), None, 0)] * (tokens // TUNING_LENGTH))
        start, runs = time.perf_counter(), self._runs
        self.run(batch, tokens=False, alone=True)
        if self._runs != runs + 1:
            raise InterruptedError
        return time.perf_counter() - start


def _table_rows(plan: Plan) -> dict[str, int]:
    """Rows of the smallest table that each kind of ids is looked up in."""
    rows: dict[str, int] = {}
    for kind, table in plan.tables:
        rows[kind] = min(rows.get(kind, len(table)), len(table))
    return rows


def _check_range(what: str, values: NDArray[Any], first: int, end: int) -> None:
    if values.size == 0 or values.min() < first or values.max() >= end:
        raise ValueError(f"{what} is not between {first} and {end - 1}")
