"""Runs a function of operations on each engine and on the oracle, so that the results can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset15 as op

from extras import needs_torch
from native import running
from native.kernels import kernels, levels, needs_kernels
from oracle.numpy_ops import NumpyOps, Sequences
from text_embeddings_inference.ops.native import Rows
from text_embeddings_inference.ops.openvino import Float32OpenVINOOps, OpenVINOOps
from text_embeddings_inference.ops.openvino_layout import PaddedLayout
from text_embeddings_inference.ops.spec import Layout, Value
from text_embeddings_inference.types import Batch

Array = NDArray[Any]
Function = Callable[..., Value]
"""`f(ops, layout, *values) -> value`: what is run, once per engine."""

PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
MAX_LENGTH = 64
"""Of the sequences in these tests."""
GARBAGE = 1e3
"""What inputs hold where there is no token."""


def random(*shape: int, seed: int = 0, spread: float = 1.0) -> NDArray[np.float32]:
    """Normally distributed float32 values."""
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def ragged(lengths: Sequence[int], *shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Random values `[B, S, ...]` with GARBAGE for padding."""
    x = random(len(lengths), max(lengths), *shape, seed=seed)
    for row, n in zip(x, lengths, strict=True):
        row[n:] = GARBAGE
    return x


def on_openvino(
    function: Function, *arrays: Array, lengths: Sequence[int], ops: type[OpenVINOOps] = OpenVINOOps
) -> Array:
    """The result on OpenVINO in float32. The graph is compiled once for all batches: it knows neither `B` nor `S`."""
    request = _compile(function, tuple(_input_type(array) for array in arrays), ops).create_infer_request()
    request.infer([*arrays, _int32(lengths), np.array(max(lengths), np.int64)])
    return np.array(request.get_output_tensor(0).data)


def openvino_kernels(function: Function, *arrays: Array, ops: type[OpenVINOOps] = OpenVINOOps) -> list[str]:
    """What OpenVINO makes of the function: the types of its kernels."""
    compiled = _compile(function, tuple(_input_type(array) for array in arrays), ops)
    return [str(node.get_rt_info()["layerType"].astype(str)) for node in compiled.get_runtime_model().get_ops()]


def openvino_products(function: Function, *arrays: Array, ops: type[OpenVINOOps]) -> list[str]:
    """For each of its matrix products with weights, the names of the operations that it computes."""
    compiled = _compile(function, tuple(_input_type(array) for array in arrays), ops)
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return [
        str(node["originalLayersNames"].astype(str))
        for node in nodes
        if node["layerType"].astype(str) == "FullyConnected"
    ]


def on_torch(function: Function, *arrays: Array, lengths: Sequence[int], dtype: str = "float32") -> Array:
    """The result on PyTorch, on the CPU."""
    return _on_torch(
        function, arrays, Batch(np.zeros((len(lengths), max(lengths)), np.int32), None, _int32(lengths)), dtype
    )


def on_torch_packed(function: Function, *arrays: Array, lengths: Sequence[int], dtype: str = "float32") -> Array:
    """PyTorch's result for the same batch, packed."""
    packed, ids = [tokens_of(array, lengths) for array in arrays], np.zeros(sum(lengths), np.int32)
    return _on_torch(function, packed, Batch(ids, None, _int32(lengths)), dtype)


def on_native(function: Function, *arrays: Array, lengths: Sequence[int], level: str) -> Array:
    """The result of the native kernels, padded with zeros; rows `[R, D]` are taken as they are."""
    if arrays and arrays[0].ndim == 2 and arrays[0].dtype.kind == "f":
        return running.run(function, *arrays, lengths=arrays[0].shape[:1], level=kernels(level)).values
    if arrays and arrays[0].shape[:2] != (len(lengths), max(lengths)):
        lengths = arrays[0].shape[1:2] * len(arrays[0])
    tokens = [tokens_of(array, lengths) for array in arrays]
    rows, result = running.run(function, *tokens, lengths=lengths, level=kernels(level))
    if rows is Rows.SEQUENCES:
        return result
    padded = np.zeros((len(lengths), max(lengths), *result.shape[1:]), np.float32)
    for row, part in zip(padded, np.split(result, np.cumsum(lengths)[:-1]), strict=True):
        row[: len(part)] = part
    return padded


def on_numpy(function: Function, *arrays: Array, lengths: Sequence[int]) -> Array:
    """The oracle's result for a padded batch, in float64."""
    ops, layout = NumpyOps(), Layout(Sequences(tuple(lengths), max(lengths)))
    return np.asarray(function(ops, layout, *(ops.constant(array) for array in arrays)).raw)


def on_numpy_packed(function: Function, *arrays: Array, lengths: Sequence[int]) -> Array:
    """The oracle's result for the same batch, packed."""
    ops, layout = NumpyOps(), Layout(Sequences(tuple(lengths), None))
    return np.asarray(function(ops, layout, *(ops.constant(tokens_of(array, lengths)) for array in arrays)).raw)


def tokens_of(x: Array, lengths: Sequence[int]) -> Array:
    """The tokens `[T, ...]` of a padded `[B, S, ...]`."""
    x = np.broadcast_to(x, (len(lengths), *x.shape[1:]))
    return np.concatenate([row[:n] for row, n in zip(x, lengths, strict=True)])


def check_close(actual: Array, expected: Array, tolerance: float, what: str = "") -> None:
    """Prints the largest difference (`pytest -s`) and fails if it is not at most `tolerance`."""
    assert actual.shape == expected.shape
    difference = float(np.abs(actual - expected).max())
    print(f"\n{what or 'largest difference'}: {difference:.2g}", end=" ")
    assert difference <= tolerance


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine under test. run: a function of operations on a padded batch; packed: its result is packed."""

    run: Callable[..., Array]
    packed: bool = False
    by_token: bool = True
    """Whether it takes constants that differ from token to token, which no model has."""

    def tokens(self, function: Function, *arrays: Array, lengths: Sequence[int]) -> Array:
        """What the tokens get, `[T, ...]`; what padding gets has to be finite."""
        result = self.run(function, *arrays, lengths=lengths)
        assert np.isfinite(result).all()
        return result if self.packed else tokens_of(result, lengths)


_PADDED = [
    pytest.param(Engine(on_openvino), id="openvino"),
    pytest.param(Engine(partial(on_openvino, ops=Float32OpenVINOOps)), id="openvino-float32"),
    pytest.param(Engine(on_torch), id="torch", marks=needs_torch),
    *(
        pytest.param(Engine(partial(on_native, level=level), by_token=False), id=f"native-{level}", marks=needs_kernels)
        for level in levels()
    ),
]
_PACKED = [pytest.param(Engine(on_torch_packed, packed=True), id="torch-packed", marks=needs_torch)]

on_each_engine = pytest.mark.parametrize("engine", _PADDED)
in_each_layout = pytest.mark.parametrize("engine", _PADDED + _PACKED)

InputType = tuple[tuple[int, ...], str]
"""Shape, -1 for what is open, and NumPy's name of the type."""


def _input_type(array: Array) -> InputType:
    """Batch and length are open, the rest is known, as in a model's graph."""
    outer = min(array.ndim, 2) if array.ndim != 2 or array.dtype.kind != "f" else 1  # `[B, S, ...]`, ids, or `[B, D]`
    return (-1,) * outer + array.shape[outer:], array.dtype.name


@lru_cache(maxsize=64)
def _compile(function: Function, inputs: tuple[InputType, ...], ops: type[OpenVINOOps]) -> ov.CompiledModel:
    parameters = [op.parameter(list(shape), np.dtype(name)) for shape, name in inputs]
    lengths, width = op.parameter([-1], np.int32), op.parameter([], np.int64)
    result = function(ops(MAX_LENGTH), Layout(PaddedLayout(lengths, width)), *map(Value, parameters))
    graph = ov.Model([op.result(result.raw)], [*parameters, lengths, width])
    return ov.Core().compile_model(graph, "CPU", PROPERTIES)


def _on_torch(function: Function, arrays: Sequence[Array], batch: Batch, dtype: str) -> Array:
    import torch

    from text_embeddings_inference.ops.torch import TorchOps
    from text_embeddings_inference.ops.torch_sequences import Sequences as TorchSequences

    cpu = torch.device("cpu")
    with torch.inference_mode():
        ops, layout = TorchOps(cpu, getattr(torch, dtype), MAX_LENGTH), Layout(TorchSequences.of(batch, cpu))
        result = function(ops, layout, *(ops.constant(array) for array in arrays)).raw
    return np.asarray((result.float() if result.is_floating_point() else result).numpy())


def _int32(values: Sequence[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)
