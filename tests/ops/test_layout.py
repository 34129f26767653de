"""The operations that know where sequences begin and end: on each engine, and on the oracle in both layouts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from one_op import (
    Engine,
    Function,
    check_close,
    in_each_layout,
    on_each_engine,
    on_numpy,
    on_numpy_packed,
    ragged,
    random,
    tokens_of,
)

from text_embeddings_inference.ops.spec import AttentionSpec, DisentangledSpec, Growth, Ops, RelativeBias, Rope
from text_embeddings_inference.types import Pooling

BATCHES = {
    "one": (7,),
    "one-token": (1,),
    "equal": (5, 5),
    "ragged": (1, 7, 3),
    "single-tokens": (1, 1),
    "longer": (33, 2, 32, 31),
}
batches = pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES.keys())


@dataclass(frozen=True)
class Shape:
    """An AttentionSpec without engine values. reach: of the relative bias, None for none."""

    scale: float | None = None
    causal: bool = False
    window: int | None = None
    reach: int | None = None
    alibi: bool = False
    cap: float | None = None

    def spec(self, ops: Ops, heads: int) -> AttentionSpec:
        bias = None
        if self.reach is not None:
            bias = RelativeBias(ops.constant(random(2 * self.reach + 1, heads, seed=9, spread=2)), self.reach)
        alibi = tuple(2.0**-n for n in range(heads)) if self.alibi else None
        return AttentionSpec(self.scale, self.causal, self.window, bias, alibi, self.cap)


SHAPES = {
    "plain": Shape(),
    "scale": Shape(scale=0.9),
    "causal": Shape(causal=True),
    "window": Shape(window=2),
    "window-0": Shape(window=0),
    "causal-window": Shape(causal=True, window=3),
    "bias": Shape(reach=3),
    "bias-far": Shape(reach=128),
    "alibi": Shape(alibi=True),
    "cap": Shape(cap=0.5),
    "cap-causal-window": Shape(scale=0.9, causal=True, window=3, cap=2.0),
    "cap-all": Shape(scale=1.0, causal=True, window=4, reach=2, alibi=True, cap=1.0),
    "all": Shape(scale=1.0, causal=True, window=4, reach=2, alibi=True),
}


@cache
def attention(shape: Shape, heads: int) -> Function:
    def function(ops: Ops, layout: Any, q: Any, k: Any, v: Any) -> Any:
        return ops.attention(q, k, v, shape.spec(ops, heads), layout)

    return function


def check_tokens(engine: Engine, function: Function, *arrays: Any, lengths: tuple[int, ...], tolerance: float) -> None:
    """Compares what tokens get: the engine with the oracle, and the oracle's two layouts with each other."""
    oracle = tokens_of(on_numpy(function, *arrays, lengths=lengths), lengths)
    check_close(on_numpy_packed(function, *arrays, lengths=lengths), oracle, 1e-12, "packed and padded")
    check_close(engine.tokens(function, *arrays, lengths=lengths), oracle, tolerance, "engine and oracle")


@batches
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@in_each_layout
def test_attention(engine: Engine, shape: Shape, lengths: tuple[int, ...]) -> None:
    q, k, v = (ragged(lengths, 4, 8, seed=seed) for seed in range(3))
    check_tokens(engine, attention(shape, 4), q, k, v, lengths=lengths, tolerance=2e-5)


@pytest.mark.parametrize("groups", [(1, 1), (4, 2), (4, 1), (6, 3)], ids=str)
@pytest.mark.parametrize("shape", [SHAPES["plain"], SHAPES["all"]], ids=["plain", "all"])
@in_each_layout
def test_attention_with_fewer_heads_of_keys(engine: Engine, shape: Shape, groups: tuple[int, int]) -> None:
    lengths = BATCHES["ragged"]
    heads, key_heads = groups
    q, k, v = ragged(lengths, heads, 8), ragged(lengths, key_heads, 8, seed=1), ragged(lengths, key_heads, 8, seed=2)
    check_tokens(engine, attention(shape, heads), q, k, v, lengths=lengths, tolerance=2e-5)


@in_each_layout
def test_attention_of_several_kinds_in_one_graph(engine: Engine) -> None:
    """Layers with and without a window share the layout, but not the mask."""
    lengths = BATCHES["ragged"]

    def function(ops: Ops, layout: Any, q: Any) -> Any:
        for shape in (SHAPES["plain"], SHAPES["window-0"], SHAPES["causal"], SHAPES["plain"]):
            q = ops.add(q, ops.attention(q, q, q, shape.spec(ops, 2), layout))
        return q

    check_tokens(engine, function, ragged(lengths, 2, 8), lengths=lengths, tolerance=2e-5)


def test_oracle_attention_worked_by_hand() -> None:
    """Scores 0 and ln 3 are weights 1/4 and 3/4; the first of two tokens sees only itself where causal."""
    keys = np.array([0, np.log(3)], np.float32).reshape(1, 2, 1, 1)
    values = np.array([4, 8], np.float32).reshape(1, 2, 1, 1)
    queries = np.ones((1, 2, 1, 1), np.float32)
    everything = on_numpy(attention(Shape(), 1), queries, keys, values, lengths=(2,))
    check_close(everything.ravel(), np.array([7, 7]), 1e-6)
    causal = on_numpy(attention(Shape(causal=True), 1), queries, keys, values, lengths=(2,))
    check_close(causal.ravel(), np.array([4, 7]), 1e-6)
    cap = float(np.log(3) / 2)  # bounds a score of ln 3 to ln 3 / 2 * tanh 2
    capped = on_numpy(attention(Shape(cap=cap), 1), queries, keys, values, lengths=(2,))
    weight = 1 / (1 + np.exp(-cap * np.tanh(2)))
    check_close(capped.ravel(), np.full(2, 4 + 4 * weight), 1e-6)


@dataclass(frozen=True)
class Terms:
    """A DisentangledSpec without engine values: which terms it has, and how far its rows reach."""

    keys: bool = True
    queries: bool = True
    reach: int = 3

    def spec(self, ops: Ops, heads: int, width: int) -> DisentangledSpec:
        table_rows = self.reach + 2  # fewer than distances: some share a row, as in log buckets
        rows = np.random.default_rng(5).integers(0, table_rows, 2 * self.reach + 1).astype(np.int32)
        keys, queries = (ops.constant(random(table_rows, heads, width, seed=seed)) for seed in (6, 7))
        return DisentangledSpec(0.3, rows, keys if self.keys else None, queries if self.queries else None)


TERMS = {
    "both": Terms(),
    "keys": Terms(queries=False),
    "queries": Terms(keys=False),
    "neither": Terms(keys=False, queries=False),
    "far": Terms(reach=40),
    "near": Terms(reach=0),
}


@cache
def disentangled_attention(terms: Terms) -> Function:
    def function(ops: Ops, layout: Any, q: Any, k: Any, v: Any) -> Any:
        return ops.disentangled_attention(q, k, v, terms.spec(ops, 4, 8), layout)

    return function


@batches
@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
@in_each_layout
def test_disentangled_attention(engine: Engine, terms: Terms, lengths: tuple[int, ...]) -> None:
    q, k, v = (ragged(lengths, 4, 8, seed=seed) for seed in range(3))
    check_tokens(engine, disentangled_attention(terms), q, k, v, lengths=lengths, tolerance=2e-5)


@on_each_engine
def test_disentangled_attention_worked_by_hand(engine: Engine) -> None:
    """Two tokens of width 1, all of q and k 1: scores are 1 + keys[r] + queries[r].

    Distance (query minus key) -1, 0, 1 is row 2, 0, 1. The first token scores 0 for itself and ln 3 for the second:
    weights 1/4 and 3/4. The second token scores ln 7 for the first and 0 for itself: 7/8 and 1/8.
    """
    ones, values = np.ones((1, 2, 1, 1), np.float32), np.array([8, 16], np.float32).reshape(1, 2, 1, 1)
    keys = np.array([-1, -1, np.log(3)], np.float32).reshape(3, 1, 1)
    queries = np.array([0, np.log(7), -1], np.float32).reshape(3, 1, 1)

    def function(ops: Ops, layout: Any, q: Any, k: Any, v: Any) -> Any:
        rows = np.array([2, 0, 1], np.int32)
        spec = DisentangledSpec(1.0, rows, ops.constant(keys), ops.constant(queries))
        return ops.disentangled_attention(q, k, v, spec, layout)

    for run in (on_numpy, engine.run):
        check_close(run(function, ones, ones, values, lengths=(2,)).ravel(), np.array([14, 9]), 1e-5)


@cache
def pool(pooling: Pooling) -> Function:
    def function(ops: Ops, layout: Any, x: Any) -> Any:
        return ops.pool(x, pooling, layout)

    return function


@batches
@pytest.mark.parametrize("pooling", Pooling)
@in_each_layout
def test_pool(engine: Engine, pooling: Pooling, lengths: tuple[int, ...]) -> None:
    function, x = pool(pooling), ragged(lengths, 6)
    oracle = on_numpy(function, x, lengths=lengths)
    check_close(on_numpy_packed(function, x, lengths=lengths), oracle, 1e-12, "packed and padded")
    check_close(engine.run(function, x, lengths=lengths), oracle, 1e-5, "engine and oracle")


@on_each_engine
def test_pool_worked_by_hand(engine: Engine) -> None:
    """Of 1, 2, 6 and of -4: what each pooling gives."""
    x = np.array([[1, 2, 6], [-4, 99, 99]], np.float32)[..., None]
    expected = {
        Pooling.CLS: (1, -4),
        Pooling.LAST_TOKEN: (6, -4),
        Pooling.MEAN: (3, -4),
        Pooling.MAX: (6, -4),
        Pooling.MEAN_SQRT_LEN: (9 / 3**0.5, -4),
        Pooling.WEIGHTED_MEAN: ((1 + 4 + 18) / 6, -4),
        Pooling.SPLADE: (np.log(7), 0),
        Pooling.SPLADE_LOG1P: (np.log(1 + np.log(7)), 0),
        Pooling.SPLADE_SUM: (np.log(2 * 3 * 7), 0),
        Pooling.SPLADE_SUM_LOG1P: (np.log((1 + np.log(2)) * (1 + np.log(3)) * (1 + np.log(7))), 0),
    }
    assert expected.keys() == set(Pooling)
    for pooling, values in expected.items():
        for run in (on_numpy, engine.run):
            check_close(run(pool(pooling), x, lengths=(3, 1)).ravel(), np.array(values), 1e-5, pooling)


def positions(ops: Ops, layout: Any) -> Any:
    return ops.positions(layout)


@batches
@in_each_layout
def test_positions(engine: Engine, lengths: tuple[int, ...]) -> None:
    expected = np.concatenate([np.arange(n) for n in lengths])
    assert np.array_equal(on_numpy_packed(positions, lengths=lengths), expected)
    assert np.array_equal(tokens_of(on_numpy(positions, lengths=lengths), lengths), expected)
    assert np.array_equal(engine.tokens(positions, lengths=lengths), expected)


@cache
def shift(by: int) -> Function:
    def function(ops: Ops, layout: Any, x: Any) -> Any:
        return ops.shift(x, by, layout)

    return function


@batches
@pytest.mark.parametrize("by", [0, 1, -1, 4])
@in_each_layout
def test_shift(engine: Engine, by: int, lengths: tuple[int, ...]) -> None:
    check_tokens(engine, shift(by), ragged(lengths, 6), lengths=lengths, tolerance=0)


@on_each_engine
def test_shift_worked_by_hand(engine: Engine) -> None:
    x = np.array([[1, 2, 3], [4, 99, 99]], np.float32)[..., None]
    for run in (on_numpy, engine.run):
        assert run(shift(1), x, lengths=(3, 1))[0].ravel().tolist() == [2, 3, 0]
        assert run(shift(-1), x, lengths=(3, 1))[0].ravel().tolist() == [0, 1, 2]
        assert run(shift(1), x, lengths=(3, 1))[1, 0].tolist() == [0]


ROPES = {
    "whole head": Rope(1.0 / 100 ** (np.arange(4) / 4)),
    "part of a head": Rope(np.array([1.0, 0.1])),
    "scaled": Rope(np.array([0.7, 0.3, 0.1, 0.0]), scale=1.2),
    "growing": Rope(np.array([0.7, 0.3, 0.1, 0.0]), scale=1.2, growth=Growth(0.5, 3)),
}


@cache
def rope(name: str) -> Function:
    def function(ops: Ops, layout: Any, x: Any) -> Any:
        return ops.rope(x, ROPES[name], layout)

    return function


@batches
@pytest.mark.parametrize("name", ROPES)
@in_each_layout
def test_rope(engine: Engine, name: str, lengths: tuple[int, ...]) -> None:
    check_tokens(engine, rope(name), ragged(lengths, 3, 8), lengths=lengths, tolerance=1e-5)


@on_each_engine
def test_rope_worked_by_hand(engine: Engine) -> None:
    """A quarter turn per position takes (1, 2) to (-2, 1), and to (-1, -2); the first position does not turn."""
    x = np.array([[1, 2]] * 3, np.float32).reshape(1, 3, 1, 2)
    quarter = Rope(np.array([np.pi / 2]))

    def function(ops: Ops, layout: Any, x: Any) -> Any:
        return ops.rope(x, quarter, layout)

    for run in (on_numpy, engine.run):
        check_close(run(function, x, lengths=(3,)).reshape(3, 2), np.array([[1, 2], [-2, 1], [-1, -2]]), 1e-6)
