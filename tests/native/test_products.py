"""Products in every format and at sizes that fill neither a tile nor a vector, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from native import running
from native.kernels import kernels, levels, needs_kernels
from text_embeddings_inference.native.formats import DTYPES
from text_embeddings_inference.ops.spec import Ops

pytestmark = needs_kernels
ROWS = (1, 7, 8, 9, 63, 64, 65)
SIZES = ((1, 1), (3, 50), (47, 49), (64, 96), (97, 7), (200, 131))
"""Inputs and outputs."""
TOLERANCES = {"float32": 2e-6, "bfloat16": 8e-3, "int16": 6e-4, "int8": 1.5e-2}
"""Largest error, in units of |x| |w|."""


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def dtypes(level: str) -> list[str]:
    return [dtype for dtype, format_ in DTYPES.items() if kernels(level).group(format_) or dtype == "bfloat16"]


def error(actual: NDArray[Any], exact: NDArray[Any], x: NDArray[Any], weight: NDArray[Any]) -> float:
    """The largest, in units of |x| |w|."""
    sizes = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    return float((np.abs(actual - exact) / np.maximum(sizes, 1e-30)).max())


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("rows", ROWS)
def test_odd_sizes(level: str, rows: int) -> None:
    for dtype in dtypes(level):
        for inputs, outputs in SIZES:
            x, weight = random(rows, inputs), random(outputs, inputs, seed=1)

            def linear(ops: Ops, _: Any, x: Any, weight: NDArray[Any] = weight) -> Any:
                return ops.linear(x, ops.constant(weight))

            for threads in (1, 3):
                found = running.run(
                    linear, x, lengths=(rows,), level=kernels(level), dtype=dtype, threads=threads
                ).values
                worst = error(found, x.astype(float) @ weight.T, x, weight)
                assert worst <= TOLERANCES[dtype], f"{dtype}, {inputs} -> {outputs}: {worst:.2g}"


@pytest.mark.parametrize("level", levels())
def test_what_follows_a_product(level: str) -> None:
    """Bias, function, factor and summand, fused, as they are one after another."""
    x, weight, bias = random(13, 40), random(50, 40, seed=1) / 8, random(50, seed=2)
    other, more = random(13, 50, seed=3), random(13, 50, seed=4)
    functions = {"gelu": None, "relu": None, "silu": None, "tanh": None, "sigmoid": None}
    for name in functions:

        def function(ops: Ops, _: Any, x: Any, y: Any, z: Any, name: str = name) -> Any:
            product = ops.linear(x, ops.constant(weight), ops.constant(bias))
            return ops.add(ops.mul(getattr(ops, name)(product), y), z)

        exact = running.exact(function, x, other, more)
        for dtype in dtypes(level):
            found = running.run(function, x, other, more, lengths=(13,), level=kernels(level), dtype=dtype).values
            assert np.abs(found - exact).max() <= max(40 * TOLERANCES[dtype], 1e-5), f"{name} in {dtype}"


def hostile_rows(width: int) -> NDArray[np.float32]:
    """Each of them has its own way to overflow an integer, or its scale."""
    signs, spike = np.where(np.arange(width) % 2, -1.0, 1.0), np.zeros(width)
    spike[width // 2] = 1
    noise = random(width).astype(float)
    shapes = [np.ones(width), -np.ones(width), signs, spike, noise, spike + 1e-3 * noise, 1e5 * spike + noise]
    sizes = [1e-45, 1e-39, 1e-30, 1e-6, 1.0, 1e30, 1e38]
    rows = np.stack([np.zeros(width), *(shape * size for size in sizes for shape in shapes)])
    return np.clip(rows, -3.3e38, 3.3e38).astype(np.float32)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("inputs", [1, 31, 4096])
def test_no_sum_overflows(level: str, inputs: int) -> None:
    """Whatever the rows and the weights are: near to the exact result, or none where that is out of float32's range.

    Rows and weights of equal numbers have the largest sums, and so the coarsest scale: 8 bits of 16 here."""
    x = hostile_rows(inputs)
    for scale in (1e-38, 1e-3, 1.0, 1e30):
        weight = np.clip(hostile_rows(inputs)[15:36] * scale, -3e38, 3e38).astype(np.float32)

        def linear(ops: Ops, _: Any, x: Any, weight: NDArray[Any] = weight) -> Any:
            return ops.linear(x, ops.constant(weight))

        (rows, largest_x), (columns, largest_w) = _sizes(x), _sizes(weight)
        exact, sizes = x.astype(float) @ weight.T.astype(float), rows[:, None] * columns
        nothing = 1e-32 * inputs * (largest_x[:, None] + largest_w) + 1e-37 * inputs
        steps = {"int8": inputs**0.5 / 90 * (rows[:, None] * largest_w + largest_x[:, None] * columns)}
        for dtype in dtypes(level):
            found = running.run(linear, x, lengths=(len(x),), level=kernels(level), dtype=dtype).values
            near = np.abs(found - exact) <= sizes * max(TOLERANCES[dtype], 1 / 256) + nothing + steps.get(dtype, 0)
            outside = ~np.isfinite(found) & (sizes >= 1e37)
            assert (near | outside).all(), f"{dtype}, {scale}: {np.argwhere(~(near | outside))[:3]}"


def _sizes(rows: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The length of each row, and its largest number."""
    return np.linalg.norm(rows.astype(float), axis=1), np.abs(rows.astype(float)).max(1)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_give_none(level: str, what: float) -> None:
    x, weight = random(5, 40), random(20, 40, seed=1)
    weight[3, 11] = what

    def linear(ops: Ops, _: Any, x: Any) -> Any:
        return ops.linear(x, ops.constant(weight))

    for dtype in dtypes(level):
        found = running.run(linear, x, lengths=(5,), level=kernels(level), dtype=dtype).values
        assert (~np.isfinite(found) == (np.arange(20) == 3)).all(), dtype


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_stays_none(level: str, what: float) -> None:
    """Or a model that fails would give vectors."""
    x, weight = random(4, 33), random(20, 33, seed=1)
    x[2, 7] = what

    def function(ops: Ops, _: Any, x: Any) -> Any:
        return ops.linear(x, ops.constant(weight))

    for dtype in dtypes(level):
        found = running.run(function, x, lengths=(4,), level=kernels(level), dtype=dtype).values
        assert not np.isfinite(found[2]).any(), dtype
        assert np.isfinite(found[[0, 1, 3]]).all(), dtype


@pytest.mark.parametrize("level", levels())
def test_functions_do_not_hide_what_is_not_a_number(level: str) -> None:
    x, weight = random(4, 33), random(20, 33, seed=1)
    x[2, 7] = np.nan

    def function(ops: Ops, _: Any, x: Any) -> Any:
        return ops.gelu(ops.linear(x, ops.constant(weight)))

    for dtype in dtypes(level):
        found = running.run(function, x, lengths=(4,), level=kernels(level), dtype=dtype).values
        assert np.isnan(found[2]).all(), dtype


@pytest.mark.parametrize("level", levels())
def test_weights_stored_in_16_bits_are_exact(level: str) -> None:
    x, weight = random(9, 70), (random(30, 70, seed=1).view(np.uint32) & 0xFFFF0000).view(np.float32)

    def linear(ops: Ops, _: Any, x: Any) -> Any:
        return ops.linear(x, ops.constant(weight))

    found = running.run(linear, x, lengths=(9,), level=kernels(level)).values
    assert error(found, x.astype(float) @ weight.T, x, weight) <= TOLERANCES["float32"]
