"""Whether a level computes on this CPU what the plain kernels compute: one small model with all that models have."""

from __future__ import annotations

import ctypes as c

import numpy as np
from numpy.typing import NDArray

from ..ops.native import NativeOps, Node, inputs
from ..ops.spec import AttentionSpec, Value
from ..types import Pooling
from .batch import make_batch, opened
from .formats import DTYPES, Formats
from .library import Level
from .plan import Plan

BATCHES = ((1, 33, 7), (5,))
"""Lengths: more rows than one tile has, and fewer."""
WIDTH, INNER, HEADS = 140, 300, 2
"""No multiples of a vector; several tiles of each kind and some of another."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "int16": 5e-3, "int8": 0.15}
"""Largest difference of a number of about 1."""


def passes(level: Level, plain: Level) -> bool:
    """Whether all products of the level, and all else, come near enough to the plain kernels' results."""
    exact = _run(plain, "float32")
    dtypes = [dtype for dtype, format_ in DTYPES.items() if level.group(format_)]
    return all(float(np.abs(_run(level, dtype) - exact).max()) <= TOLERANCES[dtype] for dtype in dtypes)


def _run(level: Level, dtype: str) -> NDArray[np.float32]:
    """A vector for each sequence of all batches, `[B, WIDTH]`."""
    plan = Plan(level, (_model(), None), max(BATCHES[0]), Formats(level, dtype))
    with opened(level, plan) as engine:
        return np.concatenate([_run_batch(level, engine, lengths) for lengths in BATCHES])


def _run_batch(level: Level, engine: int, lengths: tuple[int, ...]) -> NDArray[np.float32]:
    ids = np.arange(sum(lengths), dtype=np.int32)
    pooled = np.zeros((len(lengths), WIDTH), np.float32)
    batch = make_batch(ids, np.array(lengths, np.int32), (), pooled)
    problem = level.library.tei_run(engine, c.byref(batch), None)
    return np.full_like(pooled, np.nan) if problem else pooled


def _model() -> Node:
    """A block of a Transformer on random weights."""
    ops, rng, given = NativeOps(max(BATCHES[0])), np.random.default_rng(0), inputs()

    def weights(*shape: int) -> Value:
        return ops.constant((rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32))

    def linear(x: Value, width: int, outputs: int) -> Value:
        return ops.linear(x, weights(outputs, width), weights(outputs))

    one = ops.constant(np.ones(WIDTH, np.float32))
    x = ops.layer_norm(ops.embedding(weights(sum(BATCHES[0]), WIDTH), given.input_ids), one, None, 1e-6)
    q, k, v = (ops.heads(linear(x, WIDTH, WIDTH), HEADS) for _ in range(3))
    attended = ops.attention(q, k, v, AttentionSpec(window=20, alibi=(0.1, 0.01)), given.layout)
    x = ops.rms_norm(ops.add(linear(ops.merge(attended), WIDTH, WIDTH), x), one, 1e-6)
    x = ops.add(linear(ops.gelu(linear(x, WIDTH, INNER)), INNER, WIDTH), x)
    node: Node = ops.pool(x, Pooling.MEAN, given.layout).raw
    return node
