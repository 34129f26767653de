"""What is particular to the operations on PyTorch: memory, number types, packed batches, and the kernel for these."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from one_op import Function, check_close, on_numpy, on_torch, on_torch_packed, ragged, random, tokens_of

from extras import HAS_TORCH
from text_embeddings_inference.ops.spec import AttentionSpec, Layout, Ops, Rope, Value
from text_embeddings_inference.types import Pooling

if not HAS_TORCH:
    pytest.skip("PyTorch is not installed (`make torch` installs it)", allow_module_level=True)

import torch

from text_embeddings_inference.ops import torch as module
from text_embeddings_inference.ops.torch import TorchOps
from text_embeddings_inference.ops.torch_sequences import PackedSequences

CPU = torch.device("cpu")
HALF = {"float16": 2e-3, "bfloat16": 1.6e-2}
"""A few units in the last place of values around 1."""
halves = pytest.mark.parametrize("dtype", HALF)
LENGTHS = (1, 40, 3, 33, 32)


def test_a_constant_shares_the_arrays_memory() -> None:
    array = random(2, 3)
    assert np.shares_memory(TorchOps(CPU, torch.float32, 8).constant(array).raw.numpy(), array)


def test_a_constant_of_an_array_with_strides_that_may_not_be_written() -> None:
    array = random(3, 2).T
    array.flags.writeable = False
    assert np.array_equal(TorchOps(CPU, torch.float32, 8).constant(array).raw.numpy(), array)


@halves
def test_constants_get_the_number_type_and_integers_stay(dtype: str) -> None:
    ops = TorchOps(CPU, getattr(torch, dtype), 8)
    assert ops.constant(random(3)).raw.dtype == getattr(torch, dtype)
    assert ops.constant(np.arange(3, dtype=np.int32)).raw.dtype == torch.int32


@halves
@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("run", [on_torch, on_torch_packed])
def test_pooled_vectors_are_made_in_float32(run: Any, pooling: Pooling, dtype: str) -> None:
    """The sum of the tokens is far beyond what the type can tell apart; only the inputs are rounded."""
    x = ragged((60, 3), 6) + 30

    def function(ops: Ops, layout: Any, x: Any) -> Any:
        return ops.pool(x, pooling, layout)

    rounded = on_torch(lambda ops, layout, x: x, x, lengths=(60, 3), dtype=dtype)
    expected = on_numpy(function, rounded, lengths=(60, 3))
    check_close(run(function, x, lengths=(60, 3), dtype=dtype), expected, 1e-3, pooling)


NORMS: dict[str, Function] = {
    "layer_norm": lambda ops, _, x: ops.layer_norm(x, ops.constant(np.ones(16, np.float32)), None, 1e-6),
    "rms_norm": lambda ops, _, x: ops.rms_norm(x, ops.constant(np.ones(16, np.float32)), 1e-6),
    "l2_normalize": lambda ops, _, x: ops.l2_normalize(x),
}


@halves
@pytest.mark.parametrize("name", NORMS)
def test_norms_do_not_overflow(name: str, dtype: str) -> None:
    """The squares are beyond float16."""
    x = random(1, 3, 16, spread=1000)
    actual = on_torch(NORMS[name], x, lengths=(3,), dtype=dtype)
    check_close(actual, on_numpy(NORMS[name], x, lengths=(3,)), HALF[dtype])


@halves
@pytest.mark.parametrize("run", [on_torch, on_torch_packed])
def test_attention_with_rope_in_half_precision(run: Any, dtype: str) -> None:
    rope = Rope(1.0 / 100 ** (np.arange(4) / 4))

    def function(ops: Ops, layout: Any, q: Any, v: Any) -> Any:
        q = ops.rope(q, rope, layout)
        return ops.attention(q, q, v, AttentionSpec(causal=True, window=9), layout)

    q, v = ragged(LENGTHS, 2, 8), ragged(LENGTHS, 2, 8, seed=1)
    expected = tokens_of(on_numpy(function, q, v, lengths=LENGTHS), LENGTHS)
    actual = run(function, q, v, lengths=LENGTHS, dtype=dtype)
    actual = actual if actual.ndim == 3 else tokens_of(actual, LENGTHS)
    assert np.isfinite(actual).all()
    check_close(actual, expected, 4 * HALF[dtype])


def test_groups_hold_each_token_once() -> None:
    groups, back = PackedSequences(np.array(LENGTHS, np.int32), CPU).groups
    assert sorted(tuple(places.shape) for places, _ in groups) == [(2, 40), (3, 32)]
    everything = torch.cat([places.flatten() for places, _ in groups])
    assert torch.equal(everything[back], torch.arange(sum(LENGTHS)))


SPECS = {
    "plain": (AttentionSpec(), (-1, -1)),
    "scale": (AttentionSpec(scale=0.3), (-1, -1)),
    "causal": (AttentionSpec(causal=True), (-1, 0)),
    "window": (AttentionSpec(window=5), (5, 5)),
    "causal-window": (AttentionSpec(causal=True, window=5), (5, 0)),
}


@pytest.mark.parametrize("name", SPECS)
def test_what_the_kernel_for_packed_attention_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU: here it is replaced by its definition, sequence by sequence."""
    spec, window = SPECS[name]
    windows = []

    def varlen_attn(
        q: Any,
        k: Any,
        v: Any,
        cu_q: Any,
        cu_k: Any,
        max_q: int,
        max_k: int,
        *,
        scale: Any,
        window_size: Any,
        enable_gqa: Any,
    ) -> Any:
        windows.append(window_size)
        assert cu_q.dtype == torch.int32
        assert torch.equal(cu_q, cu_k)
        assert enable_gqa
        left, right = (max_q if reach < 0 else reach for reach in window_size)
        out = []
        for begin, end in pairwise(cu_q.tolist()):
            assert 0 < end - begin <= max_q == max_k
            places = torch.arange(end - begin)
            distance = places[None] - places[:, None]
            seen = (distance >= -left) & (distance <= right)
            one = (x[begin:end].transpose(0, 1) for x in (q, k, v))
            attend = torch.nn.functional.scaled_dot_product_attention
            out.append(attend(*one, attn_mask=seen, scale=scale, enable_gqa=True).transpose(0, 1))
        return torch.cat(out)

    def function(ops: Ops, layout: Any, q: Any, k: Any, v: Any) -> Any:
        return ops.attention(q, k, v, spec, layout)

    monkeypatch.setattr(module, "has_varlen", lambda device, dtype: True)
    monkeypatch.setattr(module, "varlen_attn", varlen_attn)
    arrays = [ragged(LENGTHS, heads, 8, seed=seed) for seed, heads in enumerate((4, 2, 2))]
    expected = tokens_of(on_numpy(function, *arrays, lengths=LENGTHS), LENGTHS)
    check_close(on_torch_packed(function, *arrays, lengths=LENGTHS), expected, 1e-5)
    assert windows == [window]


def test_the_kernel_is_not_given_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a bias, or a head of 12")

    monkeypatch.setattr(module, "has_varlen", lambda device, dtype: True)
    monkeypatch.setattr(module, "varlen_attn", refuse)

    def function(ops: Ops, layout: Layout, x: Value, y: Value) -> Value:
        biased = ops.attention(x, x, x, AttentionSpec(alibi=(0.5, 0.25)), layout)
        return ops.concat([biased, ops.attention(y, y, y, AttentionSpec(), layout)])

    x, y = ragged(LENGTHS, 2, 8), ragged(LENGTHS, 2, 12)
    expected = tokens_of(on_numpy(function, x, y, lengths=LENGTHS), LENGTHS)
    check_close(on_torch_packed(function, x, y, lengths=LENGTHS), expected, 1e-5)
