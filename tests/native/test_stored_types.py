"""Weights in the types that checkpoints are stored in give the same bits as when they are converted before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from native import running
from native.kernels import kernels, levels, needs_kernels
from text_embeddings_inference.ops.native import NativeOps, inputs
from text_embeddings_inference.ops.spec import Ops
from text_embeddings_inference.types import BFLOAT16, as_float32

pytestmark = needs_kernels
Array = NDArray[Any]


def stored(array: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (array.view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)
    return array.astype(dtype)


def unaligned(array: Array) -> Array:
    """The same at an odd address, as a file may have it."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved: Array = np.ndarray(array.shape, array.dtype, memory, 1)
    moved[...] = array
    return moved


FORMS = {
    "as it is": lambda array: array,
    "unaligned": unaligned,
    "rows of another": lambda array: np.repeat(array, 2, axis=0)[::2],
    "transposed": lambda array: np.ascontiguousarray(array.T).T,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("level", levels())
def test_products(level: str, dtype: str, form: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 70)).astype(np.float32)
    parts = [stored(rng.standard_normal((n, 70)).astype(np.float32), dtype) for n in (50, 3)]
    parts[0][0, :3] = stored(np.array([0, 2.0**-24, -65504], np.float32), dtype)  # 0, float16's smallest and largest
    biases = [stored(rng.standard_normal(n).astype(np.float32), dtype) for n in (50, 3)]

    def products(convert: Any) -> Array:
        def function(ops: Ops, _: Any, x: Any) -> Any:
            weights = [(ops.constant(convert(w)), ops.constant(convert(b))) for w, b in zip(parts, biases, strict=True)]
            return ops.concat([ops.linear(x, w, b) for w, b in weights])

        return running.run(function, x, lengths=(9,), level=kernels(level)).values

    found = products(lambda array: FORMS[form](array) if array.ndim > 1 else array)
    assert np.array_equal(found, products(as_float32))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("level", levels())
def test_tables(level: str, dtype: str) -> None:
    """Looked up alone, and added to something."""
    rng = np.random.default_rng(0)
    table = stored(rng.standard_normal((30, 37)).astype(np.float32), dtype)
    table[3, :4] = stored(np.array([0, -0.0, 6e-8, np.inf], np.float32), dtype)
    ids, x = rng.integers(0, 30, 9), rng.standard_normal((30, 37)).astype(np.float32)
    ids[2] = 3

    def looked_up(array: Array, add: bool) -> Array:
        def function(ops: Ops, _: Any, ids: Any) -> Any:
            rows = ops.embedding(ops.constant(array), ids)
            return ops.add(ops.embedding(ops.constant(x), ids), rows) if add else rows

        return running.run(function, ids, lengths=(9,), level=kernels(level)).values

    wide = as_float32(table)
    for array in (table, unaligned(table)):
        assert np.array_equal(looked_up(array, False), wide[ids])
        assert np.array_equal(looked_up(array, True), x[ids] + wide[ids])


def test_nothing_is_converted_when_a_model_is_recorded() -> None:
    """Slices of packed tensors, and parts that one product is cut into, stay where they are stored."""
    table = np.zeros((8, 4), np.uint16).view(BFLOAT16)
    weight = np.zeros((6, 4), np.uint16).view(BFLOAT16)
    ops, given = NativeOps(8), inputs()
    x = ops.embedding(ops.constant(table), given.input_ids)
    first, second = ops.split(ops.linear(x, ops.constant(weight)), [2, 4])
    for value in (first, second):
        assert value.raw.inputs[1].detail.base is not None
        assert np.shares_memory(value.raw.inputs[1].detail, weight)
