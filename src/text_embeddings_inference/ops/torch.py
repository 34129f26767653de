"""The operations on PyTorch tensors, computed at once, on padded batches `[B, S, ...]` and packed ones `[T, ...]`.

Values have the engine's number type, pooled vectors float32. In half precision sums are made in float32: PyTorch's
kernels for products, norms and softmax do so by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

from ..types import Pooling
from .spec import AttentionSpec, DisentangledSpec, Gelu, Layout, Ops, Rope, Value
from .torch_sequences import PackedSequences, PaddedSequences, Sequences


class TorchOps(Ops):
    """Computes on one device; see `spec.Ops` for what each operation means. To be called in inference mode."""

    def __init__(self, device: torch.device, dtype: torch.dtype, max_length: int) -> None:
        """max_length: tokens of the longest sequence that will come."""
        self._device = device
        self._dtype = dtype
        self.max_length = max_length
        self._angles: dict[Rope, Tensor] = {}
        self._has_varlen = has_varlen(device, dtype)

    def constant(self, array: NDArray[Any]) -> Value:
        tensor = torch.from_numpy(np.require(array, requirements=["C_CONTIGUOUS", "WRITEABLE"]))
        return Value((tensor.to(self._dtype) if tensor.is_floating_point() else tensor).to(self._device))

    def embedding(self, table: Value, ids: Value) -> Value:
        return Value(F.embedding(ids.raw, table.raw))

    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        inputs = x.raw.to(weight.raw.dtype)  # pooled vectors are float32
        return Value(F.linear(inputs, weight.raw, None if bias is None else bias.raw))

    def add(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw + _operand(y))

    def sub(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw - _operand(y))

    def mul(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw * _operand(y))

    def div(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw / _operand(y))

    def gelu(self, x: Value, form: Gelu = "erf") -> Value:
        return Value(F.gelu(x.raw, approximate="none" if form == "erf" else "tanh"))

    def relu(self, x: Value) -> Value:
        return Value(F.relu(x.raw))

    def silu(self, x: Value) -> Value:
        return Value(F.silu(x.raw))

    def tanh(self, x: Value) -> Value:
        return Value(torch.tanh(x.raw))

    def sigmoid(self, x: Value) -> Value:
        return Value(torch.sigmoid(x.raw))

    def sqrt(self, x: Value) -> Value:
        return Value(torch.sqrt(x.raw))

    def exp(self, x: Value) -> Value:
        return Value(torch.exp(x.raw))

    def log1p(self, x: Value) -> Value:
        return Value(torch.log1p(x.raw))

    def round(self, x: Value) -> Value:
        return Value(torch.round(x.raw))

    def softmax(self, x: Value) -> Value:
        return Value(F.softmax(x.raw, -1))

    def sum(self, x: Value) -> Value:
        return Value(x.raw.sum(-1, keepdim=True))

    def mean(self, x: Value) -> Value:
        return Value(x.raw.mean(-1, keepdim=True))

    def max(self, x: Value) -> Value:
        return Value(x.raw.amax(-1, keepdim=True))

    def keep_largest(self, x: Value, k: int) -> Value:
        values, places = x.raw.topk(k, -1)
        return Value(torch.zeros_like(x.raw).scatter(-1, places, values))

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        return [Value(part) for part in x.raw.split(list(sizes), -1)]

    def concat(self, xs: Sequence[Value]) -> Value:
        return Value(torch.cat([x.raw for x in xs], -1))

    def heads(self, x: Value, n: int) -> Value:
        return Value(x.raw.unflatten(-1, (n, -1)))

    def merge(self, x: Value) -> Value:
        return Value(x.raw.flatten(-2))

    def positions(self, layout: Layout) -> Value:
        return Value(_sequences(layout).positions)

    def shift(self, x: Value, by: int, layout: Layout) -> Value:
        return Value(_sequences(layout).shift(x.raw, by))

    def rope(self, x: Value, rope: Rope, layout: Layout) -> Value:
        cos, sin = self._rotation(rope, _sequences(layout))
        half = len(rope.inverse_frequencies)
        x1, x2, rest = x.raw.split([half, half, x.raw.shape[-1] - 2 * half], -1)
        turned = torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)  # in float32, as the angles are
        return Value(torch.cat([turned.to(x.raw.dtype), rest], -1))

    def attention(self, q: Value, k: Value, v: Value, spec: AttentionSpec, layout: Layout) -> Value:
        sequences = _sequences(layout)
        if isinstance(sequences, PackedSequences) and self._has_varlen and _suits_varlen(sequences, q.raw, spec):
            return Value(_attend_varlen(sequences, q.raw, k.raw, v.raw, spec))

        def attend(rows: PaddedSequences, *qkv: Tensor) -> Tensor:
            q_BNSH, k_BNSH, v_BNSH = (x.transpose(1, 2) for x in qkv)  # `[B, S, N, H]` each
            grouped = q_BNSH.shape[1] != k_BNSH.shape[1]
            mask = rows.mask(spec, q_BNSH.dtype)
            if spec.cap is not None:
                return _attend_capped(q_BNSH, k_BNSH, v_BNSH, mask, spec).transpose(1, 2)
            out = F.scaled_dot_product_attention(q_BNSH, k_BNSH, v_BNSH, mask, scale=spec.scale, enable_gqa=grouped)
            blind = rows.blind(spec)
            return (out if blind is None else out.masked_fill(blind, 0)).transpose(1, 2)

        return Value(sequences.padded(attend, q.raw, k.raw, v.raw))

    def disentangled_attention(self, q: Value, k: Value, v: Value, spec: DisentangledSpec, layout: Layout) -> Value:
        def attend(sequences: PaddedSequences, *qkv: Tensor) -> Tensor:
            q_BNSH, k_BNSH, v_BNSH = (x.transpose(1, 2) for x in qkv)
            bias = _position_scores(sequences, q_BNSH, k_BNSH, spec)
            mask = sequences.mask(AttentionSpec(), q_BNSH.dtype)
            bias = mask if bias is None else bias if mask is None else bias + mask
            return F.scaled_dot_product_attention(q_BNSH, k_BNSH, v_BNSH, bias, scale=spec.scale).transpose(1, 2)

        return Value(_sequences(layout).padded(attend, q.raw, k.raw, v.raw))

    def pool(self, x: Value, pooling: Pooling, layout: Layout) -> Value:
        sequences = _sequences(layout)
        lengths = sequences.lengths.unsqueeze(1)
        match pooling:
            case Pooling.CLS:
                pooled = sequences.first(x.raw)
            case Pooling.LAST_TOKEN:
                pooled = sequences.last(x.raw)
            case Pooling.MAX:
                pooled = sequences.max(x.raw)
            case Pooling.SPLADE:
                pooled = torch.log1p(F.relu(sequences.max(x.raw).float()))
            case Pooling.SPLADE_LOG1P:
                pooled = torch.log1p(torch.log1p(F.relu(sequences.max(x.raw).float())))
            case Pooling.SPLADE_SUM:
                pooled = sequences.sum(torch.log1p(F.relu(x.raw.float())))
            case Pooling.SPLADE_SUM_LOG1P:
                pooled = sequences.sum(torch.log1p(torch.log1p(F.relu(x.raw.float()))))
            case Pooling.MEAN:
                pooled = sequences.sum(x.raw) / lengths
            case Pooling.MEAN_SQRT_LEN:
                pooled = sequences.sum(x.raw) / torch.sqrt(lengths)
            case Pooling.WEIGHTED_MEAN:
                ordinals = sequences.positions.unsqueeze(-1) + 1
                pooled = sequences.sum(x.raw.float() * ordinals) / (lengths * (lengths + 1) / 2)
        return Value(pooled.float())

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, eps: float) -> Value:
        return Value(F.layer_norm(x.raw, weight.raw.shape, weight.raw, None if bias is None else bias.raw, eps))

    def rms_norm(self, x: Value, weight: Value, eps: float) -> Value:
        return Value(F.rms_norm(x.raw, weight.raw.shape, weight.raw, eps))

    def l2_normalize(self, x: Value) -> Value:
        length = torch.linalg.vector_norm(x.raw, dim=-1, keepdim=True, dtype=torch.float32)
        return Value((x.raw / length).to(x.raw.dtype))

    def experts(
        self, x: Value, gates: Value, up: Sequence[Value], down: Sequence[Value], act: Callable[[Ops, Value], Value]
    ) -> Value:
        """Each expert gets the tokens that chose it, and its results are added at their places."""
        tokens_TD, gates_TE = x.raw.flatten(0, -2), gates.raw.flatten(0, -2)
        sum_TD = torch.zeros_like(tokens_TD)
        for expert, (u, d) in enumerate(zip(up, down, strict=True)):
            chosen = gates_TE[:, expert].nonzero().squeeze(1)
            result = self.linear(act(self, self.linear(Value(tokens_TD[chosen]), u)), d).raw
            sum_TD.index_add_(0, chosen, result * gates_TE[chosen, expert, None])
        return Value(sum_TD.view(x.raw.shape))

    def _rotation(self, rope: Rope, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Cosine and sine for each token and pair, float32 `[1 or B, S, 1, R/2]` or `[T, 1, R/2]`."""
        if rope in sequences.rotations:
            return sequences.rotations[rope]
        if rope.depends_on_length(self.max_length):
            both = torch.from_numpy(sequences.rotate_by_length(rope)).to(self._device)
        else:
            if rope not in self._angles:
                self._angles[rope] = torch.from_numpy(rope.table(self.max_length)).to(self._device)
            both = self._angles[rope][:, sequences.positions]
        cos, sin = both.unsqueeze(-2)
        sequences.rotations[rope] = cos, sin
        return cos, sin


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for packed attention: FlashAttention-2, half precision, Ampere GPUs or newer."""
    if device.type != "cuda" or torch.version.cuda is None or dtype == torch.float32:
        return False
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def _suits_varlen(sequences: PackedSequences, q: Tensor, spec: AttentionSpec) -> bool:
    """Whether that kernel can compute it: every token seen, no bias, and heads it knows."""
    return (
        sequences.attended is None
        and spec.bias is None
        and spec.alibi is None
        and spec.cap is None
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= 256
    )


def _attend_varlen(sequences: PackedSequences, q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec) -> Tensor:
    reach = -1 if spec.window is None else spec.window  # -1: no end
    bounds, longest = sequences.bounds, sequences.longest
    out: Tensor = varlen_attn(
        *(q, k, v, bounds, bounds, longest, longest),
        scale=spec.scale,
        window_size=(reach, 0 if spec.causal else reach),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out


def _attend_capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, spec: AttentionSpec) -> Tensor:
    """Attention with bounded scores, which no kernel of PyTorch has: q `[B, N, S, H]` -> `[B, N, S, H]`."""
    assert spec.cap is not None
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scale = q.shape[-1] ** -0.5 if spec.scale is None else spec.scale
    scores = spec.cap * torch.tanh(q @ k.transpose(-1, -2) * (scale / spec.cap))
    scores = scores if mask is None else scores + mask
    return torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype) @ v


def _position_scores(sequences: PaddedSequences, q: Tensor, k: Tensor, spec: DisentangledSpec) -> Tensor | None:
    """The terms of `DisentangledSpec` with positions, scaled: q, k `[B, N, S, H]` -> `[B, N, S, S]`; None for none."""
    reach = len(spec.rows) // 2
    distance = -sequences.distance  # query minus key
    rows = torch.from_numpy(spec.rows).to(q.device)[distance.clamp(-reach, reach) + reach].long()
    terms = []
    if spec.keys is not None:
        by_row = q @ spec.keys.raw.permute(1, 2, 0)  # `[B, N, S, P]`
        terms.append(by_row.gather(-1, rows.expand(*by_row.shape[:2], -1, -1)))
    if spec.queries is not None:
        by_row = k @ spec.queries.raw.permute(1, 2, 0)
        terms.append(by_row.gather(-1, rows.T.expand(*by_row.shape[:2], -1, -1)).transpose(-1, -2))
    return sum(terms[1:], terms[0]) * spec.scale if terms else None


def _operand(y: Value | float) -> Any:
    return y.raw if isinstance(y, Value) else y


def _sequences(layout: Layout) -> Sequences:
    assert isinstance(layout.raw, Sequences)
    return layout.raw
