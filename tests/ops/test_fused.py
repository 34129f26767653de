"""Fused operations beside their composites: the definition in base operations, run on each engine, and the override."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_op import Engine, Function, check_close, on_each_engine, on_numpy, random

from text_embeddings_inference.ops.spec import Ops

WEIGHT, BIAS = random(16, seed=1), random(16, seed=2)
LENGTHS = (5, 5, 5)


def layer_norm(ops: Ops, _: Any, x: Any) -> Any:
    return ops.layer_norm(x, ops.constant(WEIGHT), ops.constant(BIAS), 1e-5)


def layer_norm_composite(ops: Ops, _: Any, x: Any) -> Any:
    return Ops.layer_norm(ops, x, ops.constant(WEIGHT), ops.constant(BIAS), 1e-5)


def layer_norm_without_bias(ops: Ops, _: Any, x: Any) -> Any:
    return ops.layer_norm(x, ops.constant(WEIGHT), None, 1e-5)


def layer_norm_without_bias_composite(ops: Ops, _: Any, x: Any) -> Any:
    return Ops.layer_norm(ops, x, ops.constant(WEIGHT), None, 1e-5)


def rms_norm(ops: Ops, _: Any, x: Any) -> Any:
    return ops.rms_norm(x, ops.constant(WEIGHT), 1e-6)


def rms_norm_composite(ops: Ops, _: Any, x: Any) -> Any:
    return Ops.rms_norm(ops, x, ops.constant(WEIGHT), 1e-6)


def l2_normalize(ops: Ops, _: Any, x: Any) -> Any:
    return ops.l2_normalize(x)


def l2_normalize_composite(ops: Ops, _: Any, x: Any) -> Any:
    return Ops.l2_normalize(ops, x)


UP, DOWN = random(3, 7, 16, seed=4), random(3, 16, 7, seed=5)


def gates(ops: Ops, x: Any) -> Any:
    """Of three experts, one or two for each token; with the input as spread here, none for some."""
    scores, _ = ops.split(x, [3, 13])
    return ops.keep_largest(ops.relu(scores), 2)


def experts(ops: Ops, _: Any, x: Any) -> Any:
    up, down = ([ops.constant(matrix) for matrix in matrices] for matrices in (UP, DOWN))
    return ops.experts(x, gates(ops, x), up, down, lambda ops, y: ops.tanh(y))


def experts_composite(ops: Ops, _: Any, x: Any) -> Any:
    up, down = ([ops.constant(matrix) for matrix in matrices] for matrices in (UP, DOWN))
    return Ops.experts(ops, x, gates(ops, x), up, down, lambda ops, y: ops.tanh(y))


CASES: dict[str, tuple[Function, Function]] = {
    "layer_norm": (layer_norm, layer_norm_composite),
    "layer_norm-no-bias": (layer_norm_without_bias, layer_norm_without_bias_composite),
    "rms_norm": (rms_norm, rms_norm_composite),
    "l2_normalize": (l2_normalize, l2_normalize_composite),
}

SHIFTS = {"centred": (1.0, 0.0), "small": (1e-3, 0.0), "large": (100.0, 0.0), "shifted": (1.0, 10.0)}
"""Spread and mean of the input."""


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", CASES)
@on_each_engine
def test_fused_composite_and_oracle_agree(engine: Engine, name: str, shift: str) -> None:
    spread, mean = SHIFTS[shift]
    fused, composite = CASES[name]
    x = random(3, 5, 16, spread=spread) + np.float32(mean)
    oracle = on_numpy(fused, x, lengths=LENGTHS)
    check_close(on_numpy(composite, x, lengths=LENGTHS), oracle, 1e-9, "oracle's composite")
    check_close(engine.run(composite, x, lengths=LENGTHS), oracle, 1e-5, "the engine's composite")
    check_close(engine.run(fused, x, lengths=LENGTHS), oracle, 1e-5, "the engine's own")


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@on_each_engine
def test_norm_of_equal_values_is_finite(engine: Engine, name: str) -> None:
    """Their variance is 0: eps stands under the root."""
    fused, _ = CASES[name]
    x = np.zeros((1, 2, 16), np.float32)
    check_close(engine.run(fused, x, lengths=(2,)), on_numpy(fused, x, lengths=(2,)), 1e-6)


@on_each_engine
def test_engine_and_oracle_against_figures_worked_by_hand(engine: Engine) -> None:
    """Of (3, 4): mean 3.5, deviation 0.5; root of the mean square sqrt(12.5); length 5."""
    x = np.array([[[3, 4]]], np.float32)
    one = np.ones(2, np.float32)

    def both(ops: Ops, _: Any, value: Any) -> Any:
        weight = ops.constant(one)
        norms = [ops.layer_norm(value, weight, weight, 0), ops.rms_norm(value, weight, 0), ops.l2_normalize(value)]
        return ops.concat(norms)

    expected = np.array([[[0, 2, 3 / 12.5**0.5, 4 / 12.5**0.5, 0.6, 0.8]]])
    check_close(on_numpy(both, x, lengths=(1,)), expected, 1e-12)
    check_close(engine.run(both, x, lengths=(1,)), expected, 1e-5)


@pytest.mark.parametrize("lengths", [(1,), (5, 5, 5)])
@on_each_engine
def test_experts(engine: Engine, lengths: tuple[int, ...]) -> None:
    """With one token, most experts have nothing to do; some tokens have less than two, or none."""
    x = random(len(lengths), max(lengths), 16)
    chosen = np.count_nonzero(on_numpy(lambda ops, _, y: gates(ops, y), x, lengths=lengths), -1)
    assert len(lengths) == 1 or set(chosen.ravel()) >= {1, 2}
    oracle = on_numpy(experts, x, lengths=lengths)
    check_close(engine.run(experts_composite, x, lengths=lengths), oracle, 1e-5, "the engine's composite")
    check_close(engine.run(experts, x, lengths=lengths), oracle, 1e-5, "the engine's own")
