"""The operations on PyTorch tensors, computed at once, on padded batches `[B, S, ...]` and packed ones `[T, ...]`.

Values have the engine's number type, pooled vectors float32. In half precision sums are made in float32: PyTorch's
kernels for products, norms and softmax do so by themselves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

from ..types import Batch, Pooling
from .spec import AttentionSpec, Gelu, Layout, Ops, Rope, Value

Integers = NDArray[np.integer[Any]]

GROUP_WIDTH = 32
"""Sequences of a packed batch whose lengths round up to the same multiple of it are padded together where they must."""


class Sequences(ABC):
    """Where the sequences of a batch lie, and what is computed from one token of a sequence and the next.

    positions: of each token in its sequence, int64 `[1, S]` or `[T]`; lengths: int64 `[B]`; rotations: sine and cosine
    of these positions, by Rope.
    """

    positions: Tensor

    def __init__(self, lengths: Integers, device: torch.device) -> None:
        self.device = device
        self.lengths = self._tensor(lengths)
        self.rotations: dict[Rope, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def of(batch: Batch, device: torch.device) -> Sequences:
        if batch.is_packed:
            return PackedSequences(batch.lengths, device)
        return PaddedSequences(batch.lengths, batch.input_ids.shape[1], device)

    @abstractmethod
    def first(self, x: Tensor) -> Tensor:
        """What the first token of each sequence has: `[*, D]` -> `[B, D]`."""

    @abstractmethod
    def last(self, x: Tensor) -> Tensor:
        """What the last one has."""

    @abstractmethod
    def sum(self, x: Tensor) -> Tensor:
        """The sum over the tokens of each sequence, in float32."""

    @abstractmethod
    def max(self, x: Tensor) -> Tensor:
        """The largest of each channel."""

    @abstractmethod
    def shift(self, x: Tensor, by: int) -> Tensor:
        """See `spec.Ops.shift`."""

    @abstractmethod
    def padded(self, function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        """Computes `function(sequences, *xs)`, which only knows padded batches: x `[b, s, ...]` -> `[b, s, ...]`."""

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.device, non_blocking=True)


class PaddedSequences(Sequences):
    """The rows of a padded batch. What is made of them, as masks, is made once for all layers."""

    def __init__(self, lengths: Integers, width: int, device: torch.device) -> None:
        super().__init__(lengths, device)
        self.positions = torch.arange(width, device=device).unsqueeze(0)
        self._no_padding = bool((lengths == width).all())
        self._masks: dict[AttentionSpec, Tensor | None] = {}

    @cached_property
    def kept(self) -> Tensor:
        """Whether there is a token: bool `[B, S]`."""
        return self.positions < self.lengths.unsqueeze(1)

    @cached_property
    def distance(self) -> Tensor:
        """How far each key lies after each query: int64 `[S, S]`."""
        return self.positions - self.positions.T

    def first(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def last(self, x: Tensor) -> Tensor:
        return x[torch.arange(len(x), device=self.device), self.lengths - 1]

    def sum(self, x: Tensor) -> Tensor:
        return x.masked_fill(~self.kept.unsqueeze(2), 0).sum(1, dtype=torch.float32)

    def max(self, x: Tensor) -> Tensor:
        return x.masked_fill(~self.kept.unsqueeze(2), -math.inf).amax(1)

    def shift(self, x: Tensor, by: int) -> Tensor:
        sources = self.positions + by
        exists = (sources >= 0) & (sources < self.lengths.unsqueeze(1))
        moved = x[:, sources[0].clamp(0, x.shape[1] - 1)]
        return moved.masked_fill(~exists.unsqueeze(2), 0)

    def padded(self, function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        return function(self, *xs)

    def mask(self, spec: AttentionSpec, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores: broadcasts to `[B, N, S, S]`, None for nothing."""
        if spec not in self._masks:
            bias, seen = self._bias(spec, dtype), self._seen(spec)
            if seen is not None:
                bias = torch.zeros((), dtype=dtype, device=self.device) if bias is None else bias
                bias = torch.where(seen, bias, -math.inf)
            self._masks[spec] = bias
        return self._masks[spec]

    def _seen(self, spec: AttentionSpec) -> Tensor | None:
        """The keys that a query may see, bool `[B or 1, 1, S or 1, S]`; None for all."""
        seen = None if self._no_padding else self.kept[:, None, None]
        if not spec.causal and spec.window is None:
            return seen
        near = torch.ones_like(self.distance, dtype=torch.bool)
        if spec.causal:
            near &= self.distance <= 0
        if spec.window is not None:
            near &= self.distance.abs() <= spec.window
        if seen is None:
            return near[None, None]
        return (seen & near) | (self.distance == 0)  # padding sees itself: a row without any key would give NaN

    def _bias(self, spec: AttentionSpec, dtype: torch.dtype) -> Tensor | None:
        """The part that depends on the distance and on the head, `[N, S, S]`."""
        bias = None
        if spec.alibi is not None:
            slopes = torch.tensor(spec.alibi, dtype=torch.float32, device=self.device)
            bias = -slopes[:, None, None] * self.distance.abs()
        if spec.bias is not None:
            reach = spec.bias.reach
            relative = spec.bias.table.raw[self.distance.clamp(-reach, reach) + reach].permute(2, 0, 1)
            bias = relative if bias is None else bias + relative
        return None if bias is None else bias.to(dtype)


class PackedSequences(Sequences):
    """The sequences of a packed batch, one after another."""

    def __init__(self, lengths: Integers, device: torch.device) -> None:
        super().__init__(lengths, device)
        self._host_lengths = lengths.astype(np.int64)
        self._host_starts = self._host_lengths.cumsum() - self._host_lengths
        self.longest = int(lengths.max())
        self.positions = self._tensor(np.arange(lengths.sum()) - np.repeat(self._host_starts, lengths))

    @cached_property
    def starts(self) -> Tensor:
        """int64 `[B]`."""
        return self._tensor(self._host_starts)

    @cached_property
    def bounds(self) -> Tensor:
        """Where each sequence begins, and the end of the last one: int32 `[B + 1]`."""
        return F.pad(self.lengths.cumsum(0), (1, 0)).int()

    @cached_property
    def groups(self) -> tuple[list[tuple[Tensor, PaddedSequences]], Tensor]:
        """Sequences of like length as padded batches `[b, s]`, each with the places of its tokens in `[T]`; and the
        place of each token of `[T]` in all of these batches, one after another."""
        lengths, starts = self._host_lengths, self._host_starts
        groups = []
        back, size = np.empty(lengths.sum(), np.int64), 0
        widths = -(-lengths // GROUP_WIDTH)
        for width in np.unique(widths):
            own, begin = lengths[widths == width, None], starts[widths == width, None]
            columns = np.arange(own.max())
            places = begin + np.minimum(columns, own - 1)  # padding repeats the last token
            kept = columns < own
            back[places[kept]] = size + np.flatnonzero(kept)
            size += places.size
            groups.append((self._tensor(places), PaddedSequences(own[:, 0], len(columns), self.device)))
        return groups, self._tensor(back)

    def first(self, x: Tensor) -> Tensor:
        return x[self.starts]

    def last(self, x: Tensor) -> Tensor:
        return x[self.starts + self.lengths - 1]

    def sum(self, x: Tensor) -> Tensor:
        return torch.segment_reduce(x.float(), "sum", lengths=self.lengths, unsafe=True)

    def max(self, x: Tensor) -> Tensor:
        return torch.segment_reduce(x, "max", lengths=self.lengths, unsafe=True)

    def shift(self, x: Tensor, by: int) -> Tensor:
        sources = self.positions + by
        lengths = self.lengths.repeat_interleave(self.lengths, output_size=len(x))
        exists = (sources >= 0) & (sources < lengths)
        places = torch.arange(by, len(x) + by, device=self.device).clamp(0, len(x) - 1)
        return x[places].masked_fill(~exists.unsqueeze(1), 0)

    def padded(self, function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        groups, back = self.groups
        parts = [function(rows, *(x[places] for x in xs)).flatten(0, 1) for places, rows in groups]
        return torch.cat(parts)[back]


class TorchOps(Ops):
    """Computes on one device; see `spec.Ops` for what each operation means. To be called in inference mode."""

    def __init__(self, device: torch.device, dtype: torch.dtype, max_length: int) -> None:
        """max_length: tokens of the longest sequence that will come."""
        self._device = device
        self._dtype = dtype
        self._max_length = max_length
        self._angles: dict[Rope, tuple[Tensor, Tensor]] = {}
        self._has_varlen = _has_varlen(device, dtype)

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
        if isinstance(sequences, PackedSequences) and self._has_varlen and _suits_varlen(q.raw, spec):
            return Value(_attend_varlen(sequences, q.raw, k.raw, v.raw, spec))

        def attend(rows: PaddedSequences, *qkv: Tensor) -> Tensor:
            q_BNSH, k_BNSH, v_BNSH = (x.transpose(1, 2) for x in qkv)  # `[B, S, N, H]` each
            grouped = q_BNSH.shape[1] != k_BNSH.shape[1]
            mask = rows.mask(spec, q_BNSH.dtype)
            out_BNSH = F.scaled_dot_product_attention(
                q_BNSH, k_BNSH, v_BNSH, mask, scale=spec.scale, enable_gqa=grouped
            )
            return out_BNSH.transpose(1, 2)

        return Value(sequences.padded(attend, q.raw, k.raw, v.raw))

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

    def _rotation(self, rope: Rope, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Cosine and sine for each token and pair, float32 `[1, S, 1, R/2]` or `[T, 1, R/2]`."""
        if rope not in self._angles:
            angles = np.outer(np.arange(self._max_length), rope.inverse_frequencies)
            cos, sin = (torch.from_numpy((f(angles) * rope.scale).astype(np.float32)) for f in (np.cos, np.sin))
            self._angles[rope] = cos.to(self._device), sin.to(self._device)
        if rope not in sequences.rotations:
            cos, sin = (table[sequences.positions].unsqueeze(-2) for table in self._angles[rope])
            sequences.rotations[rope] = cos, sin
        return sequences.rotations[rope]


def _has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for packed attention: FlashAttention-2, half precision, Ampere GPUs or newer."""
    if device.type != "cuda" or torch.version.cuda is None or dtype == torch.float32:
        return False
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def _suits_varlen(q: Tensor, spec: AttentionSpec) -> bool:
    """Whether that kernel can compute it: no bias, and heads it knows."""
    return spec.bias is None and spec.alibi is None and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256


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


def _operand(y: Value | float) -> Any:
    return y.raw if isinstance(y, Value) else y


def _sequences(layout: Layout) -> Sequences:
    assert isinstance(layout.raw, Sequences)
    return layout.raw
