"""Batches as C reads them, and an engine of C for a while."""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..ops.spec import Rope
from ..types import Int32Array
from .library import CBatch, Level
from .plan import Plan


def make_batch(
    input_ids: Int32Array,
    lengths: Int32Array,
    ropes: Sequence[Rope],
    pooled: NDArray[np.float32],
    *,
    type_ids: Int32Array | None = None,
    attended: Int32Array | None = None,
    hidden: NDArray[np.float32] | None = None,
) -> CBatch:
    """A packed batch of ids `[T]`, which keeps its arrays in memory.

    ropes: of the plan; pooled, hidden: where results `[B, D]` and `[T, W]` go, hidden None: they are not wanted.
    """
    starts = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    integers = [
        None if array is None else np.ascontiguousarray(array, np.int32)
        for array in (input_ids, type_ids, starts, attended)
    ]
    rotations = [np.concatenate([rope.table(n) for n in lengths.tolist()], 1) for rope in ropes]
    tables = (c.c_void_p * len(rotations))(*(table.ctypes.data for table in rotations))
    ids, types, begins, seen, results, states = (
        None if array is None else array.ctypes.data for array in (*integers, pooled, hidden)
    )
    counts = len(input_ids), len(lengths), int(lengths.max())
    batch = CBatch(*counts, ids, types, begins, seen, c.addressof(tables), results, states)
    batch.kept = (integers, rotations, tables, pooled, hidden)
    return batch


@contextmanager
def opened(level: Level, plan: Plan) -> Iterator[int]:
    """The plan, ready to run. Raises MemoryError."""
    engine = made(level.library.tei_open(level.pointer, c.byref(plan.raw)))
    try:
        yield engine
    finally:
        level.library.tei_close(engine)


def made(pointer: int | None) -> int:
    """What C made. Raises MemoryError where it could not."""
    if pointer is None:
        raise MemoryError("there is too little memory for an engine")
    return pointer
