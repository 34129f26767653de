"""Runs a function of operations on the native kernels."""

from __future__ import annotations

import ctypes as c
import resource
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from native.kernels import best_kernels
from oracle.numpy_ops import NumpyOps, Sequences
from text_embeddings_inference.native.formats import Formats
from text_embeddings_inference.native.library import CBatch, Level
from text_embeddings_inference.native.plan import Plan
from text_embeddings_inference.ops.native import NativeOps, Node, Rows
from text_embeddings_inference.ops.spec import Layout, Ops, Value
from text_embeddings_inference.types import Pooling

Array = NDArray[Any]
MAX_LENGTH = 64


class Result(NamedTuple):
    """What a function gave. values: `[T, ...]` or `[B, ...]`."""

    rows: Rows
    values: Array


def record(function: Callable[..., Value], *arrays: Array, place: Callable[[Array], Array] = np.asarray) -> Node:
    """What the function gives. arrays: rows of tokens `[T, ...]`, or ids, `[T]`: they stand for what is looked up;
    place: where constants are kept."""
    ops = _Placed(place)
    ids = Node("input_ids", (), Rows.TOKENS, ())

    def value(array: Array) -> Value:
        if array.dtype.kind != "f":
            return Value(ids)
        looked_up = ops.embedding(ops.constant(array.reshape(len(array), -1)), Value(ids))
        return ops.heads(looked_up, array.shape[1]) if array.ndim > 2 else looked_up

    node: Node = function(ops, Layout(None), *map(value, arrays)).raw
    return node


class _Placed(NativeOps):
    """Keeps constants where it is told to."""

    def __init__(self, place: Callable[[Array], Array]) -> None:
        super().__init__(MAX_LENGTH)
        self._place = place

    def constant(self, array: Array) -> Value:
        return super().constant(self._place(array))


def as_numbers(ids: Node) -> Node:
    """Ids `[T]` as values `[T, 1]`."""
    numbers = NativeOps(MAX_LENGTH).constant(np.arange(1000, dtype=np.float32)[:, None])
    node: Node = NativeOps(MAX_LENGTH).embedding(numbers, Value(ids)).raw
    return node


def run(
    function: Callable[..., Value],
    *arrays: Array,
    lengths: Sequence[int],
    attended: Sequence[int] | None = None,
    level: Level | None = None,
    dtype: str = "float32",
    threads: int = 1,
    place: Callable[[Array], Array] = np.asarray,
) -> Result:
    """What the tokens get, or the sequences. place: where constants, inputs and results are kept."""
    level = level or best_kernels()
    recorded = record(function, *arrays, place=place)
    node = recorded if recorded.shape else as_numbers(recorded)
    ops: Ops = NativeOps(MAX_LENGTH)
    of_tokens = node.rows is Rows.TOKENS
    pooled = ops.pool(Value(node), Pooling.CLS, Layout(None)).raw if of_tokens else node
    plan = Plan(level, (pooled, node if of_tokens else None), max(MAX_LENGTH, *lengths), Formats(level, dtype))
    tokens = sum(lengths)
    ids = next((array for array in arrays if array.dtype.kind != "f"), np.arange(tokens))
    starts = np.cumsum([0, *lengths])
    given = (ids.ravel(), None, starts, attended)
    integers = [None if x is None else place(np.ascontiguousarray(x, np.int32)) for x in given]
    results = (
        place(np.full((len(lengths), pooled.width), np.nan, np.float32)),
        place(np.full((tokens, node.width), np.nan, np.float32)),
    )
    addresses = [None if array is None else array.ctypes.data for array in (*integers, None, *results)]
    engine = level.library.tei_open(level.pointer, c.byref(plan.raw))
    team = level.library.tei_team_new(threads) if threads > 1 else None
    raw = CBatch(tokens, len(lengths), max(lengths), *addresses)
    assert level.library.tei_run(engine, c.byref(raw), team) == 0
    level.library.tei_team_free(team)
    level.library.tei_close(engine)
    return Result(node.rows, results[of_tokens].reshape(-1, *recorded.shape))


def exact(function: Callable[..., Value], *arrays: Array, lengths: Sequence[int] | None = None) -> Array:
    """What the oracle gives for packed tokens, in float64."""
    ops = NumpyOps()
    layout = Layout(Sequences(tuple(lengths or (len(arrays[0]),)), None))
    return np.asarray(function(ops, layout, *map(ops.constant, arrays)).raw)


def memory() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
