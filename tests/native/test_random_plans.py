"""Models put together at random, on random batches: the plan against the oracle, and against itself on more threads.

`make test-native` runs this with kernels that check every access (AddressSanitizer, UndefinedBehaviorSanitizer).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from native import running
from native.kernels import kernels, levels, needs_kernels
from text_embeddings_inference.native.formats import DTYPES
from text_embeddings_inference.ops.spec import AttentionSpec, DisentangledSpec, Layout, Ops, RelativeBias, Rope, Value
from text_embeddings_inference.types import Pooling

pytestmark = needs_kernels
SEEDS = range(int(os.environ.get("NATIVE_SEEDS", "25")))
TOLERANCE = 1e-4


class Sketch:
    """A random model: called with the same seed it asks for the same operations."""

    def __init__(self, seed: int, width: int) -> None:
        self._seed, self._width = seed, width

    def __call__(self, ops: Ops, layout: Layout, x: Value) -> Value:
        rng = np.random.default_rng(self._seed)
        for _ in range(rng.integers(1, 6)):
            parts = [self._feed_forward, self._gated, self._experts, self._attention, self._disentangled, self._others]
            part = parts[rng.integers(len(parts))]
            y = part(ops, layout, x, rng)
            x = ops.layer_norm(ops.add(y, x), self._weights(ops, rng, self._width), None, 1e-6)
        if rng.integers(3) == 0:
            x = ops.l2_normalize(ops.pool(x, rng.choice(list(Pooling)), layout))
        return x

    def _weights(self, ops: Ops, rng: np.random.Generator, *shape: int) -> Value:
        return ops.constant((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def _linear(self, ops: Ops, rng: np.random.Generator, x: Value, inputs: int, outputs: int) -> Value:
        bias = self._weights(ops, rng, outputs) if rng.integers(2) else None
        return ops.linear(x, self._weights(ops, rng, outputs, inputs), bias)

    def _feed_forward(self, ops: Ops, _: Layout, x: Value, rng: np.random.Generator) -> Value:
        inner = int(rng.integers(1, 150))
        act = rng.choice(["gelu", "relu", "silu", "tanh", "sigmoid", "softmax"])
        y = self._linear(ops, rng, x, self._width, inner)
        return self._linear(ops, rng, getattr(ops, act)(y), inner, self._width)

    def _gated(self, ops: Ops, _: Layout, x: Value, rng: np.random.Generator) -> Value:
        inner = int(rng.integers(1, 90))
        first, second = ops.split(self._linear(ops, rng, x, self._width, 2 * inner), [inner, inner])
        y = ops.mul(ops.gelu(first, "tanh"), second)
        return self._linear(ops, rng, y, inner, self._width)

    def _experts(self, ops: Ops, _: Layout, x: Value, rng: np.random.Generator) -> Value:
        count, inner = int(rng.integers(1, 6)), int(rng.integers(1, 90))
        likelihoods = ops.softmax(self._linear(ops, rng, x, self._width, count))
        gates = ops.keep_largest(likelihoods, int(rng.integers(1, count + 1)))
        up = [self._weights(ops, rng, inner, self._width) for _ in range(count)]
        down = [self._weights(ops, rng, self._width, inner) for _ in range(count)]
        return ops.experts(x, gates, up, down, lambda ops, y: ops.gelu(y))

    def _attention(self, ops: Ops, layout: Layout, x: Value, rng: np.random.Generator) -> Value:
        keys, group, half = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 20))
        heads, width = keys * group, 2 * half
        q, k, v = (ops.heads(self._linear(ops, rng, x, self._width, n * width), n) for n in (heads, keys, keys))
        if rng.integers(2):
            rope = Rope(1.0 / 100 ** (np.arange(int(rng.integers(1, half + 1))) / half))
            q, k = ops.rope(q, rope, layout), ops.rope(k, rope, layout)
        reach = int(rng.integers(0, 20))
        bias = RelativeBias(self._weights(ops, rng, 2 * reach + 1, heads), reach) if rng.integers(2) else None
        spec = AttentionSpec(
            scale=None if rng.integers(2) else 0.3,
            causal=bool(rng.integers(2)),
            window=int(rng.integers(0, 30)) if rng.integers(2) else None,
            bias=bias,
            alibi=tuple(2.0**-n for n in range(heads)) if rng.integers(2) else None,
        )
        y = ops.merge(ops.attention(q, k, v, spec, layout))
        return self._linear(ops, rng, y, heads * width, self._width)

    def _disentangled(self, ops: Ops, layout: Layout, x: Value, rng: np.random.Generator) -> Value:
        heads, width, reach = int(rng.integers(1, 4)), int(rng.integers(1, 30)), int(rng.integers(0, 20))
        q, k, v = (ops.heads(self._linear(ops, rng, x, self._width, heads * width), heads) for _ in range(3))
        table_rows = int(rng.integers(1, 40))
        rows = rng.integers(0, table_rows, 2 * reach + 1).astype(np.int32)
        keys, queries = (self._weights(ops, rng, table_rows, heads, width) for _ in range(2))
        spec = DisentangledSpec(0.3, rows, keys if rng.integers(2) else None, queries if rng.integers(2) else None)
        y = ops.merge(ops.disentangled_attention(q, k, v, spec, layout))
        return self._linear(ops, rng, y, heads * width, self._width)

    def _others(self, ops: Ops, layout: Layout, x: Value, rng: np.random.Generator) -> Value:
        cut = int(rng.integers(1, self._width))
        first, second = ops.split(x, [cut, self._width - cut])
        y = ops.concat([ops.sub(second, ops.mean(first)), ops.mul(first, ops.max(second))])
        y = ops.add(y, ops.shift(x, int(rng.integers(-3, 4)), layout))
        return ops.keep_largest(y, int(rng.integers(1, self._width + 1)))


def make(seed: int) -> tuple[Sketch, np.ndarray[Any, np.dtype[np.float32]], list[int]]:
    rng = np.random.default_rng([seed, 1])
    width = int(rng.integers(2, 70))
    lengths = [int(n) for n in rng.integers(1, 2 + int(rng.choice([3, 30, 140])), int(rng.integers(1, 6)))]
    x = rng.standard_normal((sum(lengths), width)).astype(np.float32)
    return Sketch(seed, width), x, lengths


@pytest.mark.parametrize("seed", SEEDS)
def test_random_plans(seed: int) -> None:
    sketch, x, lengths = make(seed)
    exact = running.exact(sketch, x, lengths=lengths)
    for level in map(kernels, levels()):
        alone = running.run(sketch, x, lengths=lengths, level=level).values
        assert np.abs(alone - exact).max() <= TOLERANCE, level.name
        for dtype in DTYPES:
            if dtype == "bfloat16" or level.group(DTYPES[dtype]):
                one, three = (
                    running.run(sketch, x, lengths=lengths, level=level, dtype=dtype, threads=threads).values
                    for threads in (1, 3)
                )
                assert np.array_equal(one, three), f"{level.name}, {dtype} on three threads"
                assert np.isfinite(one).all(), f"{level.name}, {dtype}"


@pytest.mark.parametrize("seed", range(4))
def test_random_plans_on_long_texts(seed: int) -> None:
    """More blocks of rows than threads, more queries than an item has, more keys than a block."""
    sketch, lengths = Sketch(seed, 12), [520, 1, 65, 256, 7, 64, 63, 8, 9]
    x = np.random.default_rng(seed).standard_normal((sum(lengths), 12)).astype(np.float32)
    exact = running.exact(sketch, x, lengths=lengths)
    for level in map(kernels, levels()):
        found = running.run(sketch, x, lengths=lengths, level=level, threads=2).values
        assert np.abs(found - exact).max() <= TOLERANCE, level.name


def test_8192_tokens_beside_one() -> None:
    """Beside the plain kernels, for the oracle's scores would take gigabytes."""
    sketch, lengths = Sketch(3, 12), [1, 8192]
    x = np.random.default_rng(0).standard_normal((sum(lengths), 12)).astype(np.float32)
    plain = running.run(sketch, x, lengths=lengths, level=kernels("plain"), threads=2).values
    for level in map(kernels, levels()):
        found = running.run(sketch, x, lengths=lengths, level=level, threads=2).values
        assert np.abs(found - plain).max() <= 2 * TOLERANCE, level.name
