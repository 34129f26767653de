"""Each operation on each engine against the oracle: the ones that act on the last axis alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_op import Engine, Function, check_close, on_each_engine, on_numpy, random

from text_embeddings_inference.ops.spec import Ops

LENGTHS = (5, 5, 5)
X = random(3, 5, 8)

UNARY: dict[str, Function] = {
    "gelu": lambda ops, _, x: ops.gelu(x),
    "gelu-tanh": lambda ops, _, x: ops.gelu(x, "tanh"),
    "relu": lambda ops, _, x: ops.relu(x),
    "silu": lambda ops, _, x: ops.silu(x),
    "tanh": lambda ops, _, x: ops.tanh(x),
    "sigmoid": lambda ops, _, x: ops.sigmoid(x),
    "exp": lambda ops, _, x: ops.exp(x),
    "softmax": lambda ops, _, x: ops.softmax(x),
    "sum": lambda ops, _, x: ops.sum(x),
    "mean": lambda ops, _, x: ops.mean(x),
    "max": lambda ops, _, x: ops.max(x),
    "sqrt": lambda ops, _, x: ops.sqrt(ops.mul(x, x)),
    "log1p": lambda ops, _, x: ops.log1p(ops.relu(x)),
    "round": lambda ops, _, x: ops.round(ops.mul(x, 3)),
    "round-halves": lambda ops, _, x: ops.round(ops.add(ops.round(x), 0.5)),
    "keep_largest": lambda ops, _, x: ops.keep_largest(x, 3),
    "split": lambda ops, _, x: ops.split(x, [1, 5, 2])[1],
    "split-concat": lambda ops, _, x: ops.concat(ops.split(x, [1, 5, 2])[::-1]),
    "split-heads": lambda ops, _, x: ops.heads(ops.split(x, [2, 4, 2])[1], 2),
    "heads": lambda ops, _, x: ops.heads(x, 4),
    "heads-merge": lambda ops, _, x: ops.merge(ops.softmax(ops.heads(x, 2))),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(3, 5, 8), (1, 1, 8), (2, 33, 8)], ids=str)
@on_each_engine
def test_unary(engine: Engine, name: str, shape: tuple[int, ...]) -> None:
    x, lengths = random(*shape, spread=2), (shape[1],) * shape[0]
    function = UNARY[name]
    check_close(engine.run(function, x, lengths=lengths), on_numpy(function, x, lengths=lengths), 1e-4, name)


@pytest.mark.parametrize("name", ["gelu", "gelu-tanh", "relu", "silu", "tanh", "sigmoid", "softmax"])
@on_each_engine
def test_unary_stays_finite_far_out(engine: Engine, name: str) -> None:
    x = np.array([[[-1e4, -88, -20, -1e-6, 0, 1e-6, 20, 88, 1e4]]], np.float32)
    with np.errstate(over="ignore"):  # the oracle's sigmoid passes through infinity
        expected = on_numpy(UNARY[name], x, lengths=(1,))
    check_close(engine.run(UNARY[name], x, lengths=(1,)), expected, 1e-4, name)


@on_each_engine
def test_the_two_forms_of_gelu_are_told_apart(engine: Engine) -> None:
    """They differ by up to 5e-4: less than most tolerances."""
    exact = engine.run(UNARY["gelu"], X, lengths=LENGTHS)
    check_close(exact, on_numpy(UNARY["gelu"], X, lengths=LENGTHS), 2e-6)
    tanh = engine.run(UNARY["gelu-tanh"], X, lengths=LENGTHS)
    check_close(tanh, on_numpy(UNARY["gelu-tanh"], X, lengths=LENGTHS), 2e-6)
    assert np.abs(exact - tanh).max() > 5e-5


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("shape", [(3, 5, 8), (8,), (3, 5, 1), (1, 5, 8), (3, 1, 8), (1, 1, 1)], ids=str)
@on_each_engine
def test_binary_with_a_value(engine: Engine, name: str, shape: tuple[int, ...]) -> None:
    if not engine.by_token and shape not in [(8,), (1, 1, 1)]:
        pytest.skip("constants are the same for all tokens there")
    y = random(*shape, seed=1)

    def function(ops: Ops, _: Any, x: Any) -> Any:
        return getattr(ops, name)(x, ops.constant(y))

    expected = on_numpy(function, X, lengths=LENGTHS)
    check_close(
        engine.run(function, X, lengths=LENGTHS) / np.abs(expected).max(), expected / np.abs(expected).max(), 1e-6
    )


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("number", [2.5, -1, 1e-12])
@on_each_engine
def test_binary_with_a_number(engine: Engine, name: str, number: float) -> None:
    def function(ops: Ops, _: Any, x: Any) -> Any:
        return getattr(ops, name)(x, number)

    expected = on_numpy(function, X, lengths=LENGTHS)
    check_close(
        engine.run(function, X, lengths=LENGTHS) / np.abs(expected).max(), expected / np.abs(expected).max(), 1e-6
    )


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("shape", [(3, 5, 8), (1, 1, 8), (4, 8)], ids=str)
@on_each_engine
def test_linear(engine: Engine, shape: tuple[int, ...], bias: bool) -> None:
    weight, offset = random(6, 8, seed=1), random(6, seed=2)

    def function(ops: Ops, _: Any, x: Any) -> Any:
        return ops.linear(x, ops.constant(weight), ops.constant(offset) if bias else None)

    x = random(*shape)
    check_close(engine.run(function, x, lengths=(1,)), on_numpy(function, x, lengths=(1,)), 1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (1, 1)], ids=str)
@on_each_engine
def test_embedding(engine: Engine, shape: tuple[int, ...]) -> None:
    table = random(11, 4)
    ids = np.random.default_rng(0).integers(0, 11, shape).astype(np.int32)
    ids[0, 0] = 10

    def function(ops: Ops, _: Any, x: Any) -> Any:
        return ops.embedding(ops.constant(table), x)

    check_close(engine.run(function, ids, lengths=(1,)), on_numpy(function, ids, lengths=(1,)), 0)


@on_each_engine
def test_keep_largest_worked_by_hand(engine: Engine) -> None:
    x = np.array([[[3, -1, 7, 5]]], np.float32)
    for run in (on_numpy, engine.run):
        assert run(lambda ops, _, x: ops.keep_largest(x, 2), x, lengths=(1,)).ravel().tolist() == [0, 0, 7, 5]
