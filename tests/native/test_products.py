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


@pytest.mark.parametrize("level", levels())
def test_no_sum_of_16_bit_products_overflows(level: str) -> None:
    """Rows and weights of equal numbers have the largest sums, and so the coarsest scale: 8 bits here."""
    if not kernels(level).group("i16"):
        pytest.skip("the level does not multiply 16-bit integers")
    inputs = 4096
    alike = np.ones((3, inputs), np.float32) * np.array([[1e-6], [1], [1e30]], np.float32)
    spiked = random(3, inputs) * np.float32(1e-3)
    spiked[:, 5] = 1000
    for x in (alike, -alike, spiked, np.zeros((2, inputs), np.float32)):
        weight = np.stack([np.ones(inputs), -np.ones(inputs), random(inputs)]).astype(np.float32)

        def linear(ops: Ops, _: Any, x: Any, weight: NDArray[Any] = weight) -> Any:
            return ops.linear(x, ops.constant(weight))

        found = running.run(linear, x, lengths=(len(x),), level=kernels(level), dtype="int16").values
        assert error(found, x.astype(float) @ weight.T, x.astype(float), weight) <= 1 / 256


@pytest.mark.parametrize("level", levels())
def test_what_is_not_a_number_stays_one(level: str) -> None:
    """Or a model that fails would give vectors."""
    x, weight = random(4, 33), random(20, 33, seed=1)
    x[2, 7] = np.nan

    def function(ops: Ops, _: Any, x: Any) -> Any:
        return ops.gelu(ops.linear(x, ops.constant(weight)))

    for dtype in dtypes(level):
        found = running.run(function, x, lengths=(4,), level=kernels(level), dtype=dtype).values
        assert np.isnan(found[2]).all(), dtype
        assert np.isfinite(found[[0, 1, 3]]).all(), dtype


@pytest.mark.parametrize("level", levels())
def test_weights_stored_in_16_bits_are_exact(level: str) -> None:
    x, weight = random(9, 70), (random(30, 70, seed=1).view(np.uint32) & 0xFFFF0000).view(np.float32)

    def linear(ops: Ops, _: Any, x: Any) -> Any:
        return ops.linear(x, ops.constant(weight))

    found = running.run(linear, x, lengths=(9,), level=kernels(level)).values
    assert error(found, x.astype(float) @ weight.T, x, weight) <= TOLERANCES["float32"]
