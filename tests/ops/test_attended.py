"""Attention in which only the first tokens of a sequence are seen: by hand, and each engine against the oracle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from one_op import MAX_LENGTH, PROPERTIES, Function, check_close, ragged, random, tokens_of
from openvino import opset15 as op

from extras import needs_torch
from native import running
from native.kernels import kernels, levels, needs_kernels
from oracle.numpy_ops import NumpyOps, Sequences
from text_embeddings_inference.ops.openvino import OpenVINOOps
from text_embeddings_inference.ops.openvino_layout import PaddedLayout
from text_embeddings_inference.ops.spec import AttentionSpec, DisentangledSpec, Layout, Ops, Value
from text_embeddings_inference.types import Batch

Array = NDArray[Any]

LENGTHS, ATTENDED = (5, 7, 1, 6), (3, 7, 1, 1)
ROWS = np.array([0, 2, 1, 0, 1], np.int32)


def on_numpy(function: Function, arrays: list[Array]) -> Array:
    ops, layout = NumpyOps(), Layout(Sequences(LENGTHS, max(LENGTHS), ATTENDED))
    return tokens_of(np.asarray(function(ops, layout, *map(ops.constant, arrays)).raw), LENGTHS)


def on_numpy_packed(function: Function, arrays: list[Array]) -> Array:
    ops, layout = NumpyOps(), Layout(Sequences(LENGTHS, None, ATTENDED))
    return np.asarray(function(ops, layout, *(ops.constant(tokens_of(array, LENGTHS)) for array in arrays)).raw)


def on_openvino(function: Function, arrays: list[Array]) -> Array:
    parameters = [op.parameter([-1, -1, *array.shape[2:]], np.float32) for array in arrays]
    lengths, attended = (op.constant(np.array(counts, np.int32)) for counts in (LENGTHS, ATTENDED))
    layout = Layout(PaddedLayout(lengths, op.constant(np.array(max(LENGTHS), np.int64)), attended))
    result = function(OpenVINOOps(MAX_LENGTH), layout, *map(Value, parameters))
    compiled = ov.Core().compile_model(ov.Model([op.result(result.raw)], parameters), "CPU", PROPERTIES)
    return tokens_of(next(iter(compiled(arrays).values())), LENGTHS)


def on_torch(function: Function, arrays: list[Array], *, packed: bool = False) -> Array:
    import torch

    from text_embeddings_inference.ops.torch import TorchOps
    from text_embeddings_inference.ops.torch_sequences import Sequences as TorchSequences

    ids = np.zeros(sum(LENGTHS) if packed else (len(LENGTHS), max(LENGTHS)), np.int32)
    batch = Batch(ids, None, np.array(LENGTHS, np.int32), np.array(ATTENDED, np.int32))
    cpu = torch.device("cpu")
    with torch.inference_mode():
        ops, layout = TorchOps(cpu, torch.float32, MAX_LENGTH), Layout(TorchSequences.of(batch, cpu))
        inputs = [tokens_of(array, LENGTHS) for array in arrays] if packed else arrays
        result = np.asarray(function(ops, layout, *map(ops.constant, inputs)).raw.numpy())
    return result if packed else tokens_of(result, LENGTHS)


def on_native(function: Function, arrays: list[Array], *, level: str) -> Array:
    tokens = [tokens_of(array, LENGTHS) for array in arrays]
    return running.run(function, *tokens, lengths=LENGTHS, attended=ATTENDED, level=kernels(level)).values


def attention(ops: Ops, layout: Layout, q: Value, k: Value, v: Value) -> Value:
    return ops.attention(q, k, v, AttentionSpec(), layout)


def windowed(ops: Ops, layout: Layout, q: Value, k: Value, v: Value) -> Value:
    """Every token still sees one that is attended."""
    return ops.attention(q, k, v, AttentionSpec(window=5), layout)


def narrow(ops: Ops, layout: Layout, q: Value, k: Value, v: Value) -> Value:
    """Some tokens see none."""
    return ops.attention(q, k, v, AttentionSpec(window=1), layout)


def disentangled(ops: Ops, layout: Layout, q: Value, k: Value, v: Value) -> Value:
    keys, queries = (ops.constant(random(3, 2, 4, seed=seed)) for seed in (7, 8))
    return ops.disentangled_attention(q, k, v, DisentangledSpec(0.5, ROWS, keys, queries), layout)


RUNS = [
    *(pytest.param(partial(on_native, level=level), id=f"native-{level}", marks=needs_kernels) for level in levels()),
    pytest.param(on_openvino, id="openvino"),
    pytest.param(on_numpy_packed, id="numpy-packed"),
    pytest.param(on_torch, id="torch", marks=needs_torch),
    pytest.param(lambda *args: on_torch(*args, packed=True), id="torch-packed", marks=needs_torch),
]


@pytest.mark.parametrize("function", [attention, windowed, narrow, disentangled])
@pytest.mark.parametrize("run", RUNS)
def test_engines_agree(run: Callable[[Function, list[Array]], Array], function: Function) -> None:
    arrays: list[Array] = [ragged(LENGTHS, 2, 4, seed=seed) for seed in range(3)]
    check_close(run(function, arrays), on_numpy(function, arrays), 2e-5)


@pytest.mark.parametrize("function", [attention, windowed, disentangled])
def test_what_is_not_attended_changes_nothing(function: Function) -> None:
    q, k, v = (ragged(LENGTHS, 2, 4, seed=seed) for seed in range(3))
    before = on_numpy(function, [q, k, v])
    for row, seen in enumerate(ATTENDED):
        k[row, seen:] = v[row, seen:] = 77
    assert np.array_equal(on_numpy(function, [q, k, v]), before)


def test_what_sees_no_token_gets_zeros() -> None:
    q, k, v = (ragged(LENGTHS, 2, 4, seed=seed) for seed in range(3))
    found = on_numpy(narrow, [q, k, v])
    assert np.flatnonzero(~found.any(axis=(1, 2))).tolist() == [4, 15, 16, 17, 18]


def test_a_single_attended_token_is_all_that_is_seen() -> None:
    """The last sequence: each of its six tokens gets the value of the first."""
    q, k, v = (ragged(LENGTHS, 2, 4, seed=seed) for seed in range(3))
    found = on_numpy(attention, [q, k, v])[-6:]
    check_close(found, np.broadcast_to(v[3, 0], found.shape), 1e-6)
