"""The operations in NumPy, each straight from its definition in `ops.spec`: slow, in float64, one sequence at a time.

Both layouts: padded `[B, S, ...]` and packed `[T, ...]`. Attention and pooling never see padding, and attention gives
NaN for it: where padding leaks into a result, the result is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text_embeddings_inference.ops.spec import AttentionSpec, DisentangledSpec, Gelu, Layout, Ops, Rope, Value
from text_embeddings_inference.types import Batch, Pooling

Array = NDArray[Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, slots=True)
class Sequences:
    """Where the sequences of a batch lie.

    width: `S` of a padded batch, None for a packed one; attended: as in `Batch`.
    """

    lengths: tuple[int, ...]
    width: int | None
    attended: tuple[int, ...] | None = None

    @staticmethod
    def of(batch: Batch) -> Sequences:
        lengths = tuple(int(n) for n in batch.lengths)
        attended = None if batch.attended is None else tuple(int(n) for n in batch.attended)
        return Sequences(lengths, None if batch.is_packed else batch.input_ids.shape[1], attended)

    @property
    def seen(self) -> tuple[int, ...]:
        """How many of the first tokens of each sequence are seen."""
        return self.lengths if self.attended is None else self.attended

    def split(self, x: Array) -> list[Array]:
        """One array `[n, ...]` for each sequence, without its padding."""
        if self.width is None:
            assert len(x) == sum(self.lengths)
            return np.split(x, np.cumsum(self.lengths)[:-1])
        assert x.shape[:2] == (len(self.lengths), self.width)
        return [row[:n] for row, n in zip(x, self.lengths, strict=True)]

    def join(self, parts: Sequence[Array], padding: float = math.nan) -> Array:
        """The reverse of `split`."""
        if self.width is None:
            return np.concatenate(parts)
        first = parts[0]
        joined = np.full((len(parts), self.width, *first.shape[1:]), padding, first.dtype)
        for row, part in zip(joined, parts, strict=True):
            row[: len(part)] = part
        return joined


class NumpyOps(Ops):
    """Computes at once; see `spec.Ops` for what each operation means."""

    def __init__(self, max_length: int = 1) -> None:
        self.max_length = max_length

    def constant(self, array: NDArray[Any]) -> Value:
        return Value(array.astype(np.float64) if array.dtype.kind == "f" else array)

    def embedding(self, table: Value, ids: Value) -> Value:
        return Value(table.raw[ids.raw])

    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        product = x.raw @ weight.raw.T
        return Value(product if bias is None else product + bias.raw)

    def add(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw + _operand(y))

    def sub(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw - _operand(y))

    def mul(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw * _operand(y))

    def div(self, x: Value, y: Value | float) -> Value:
        return Value(x.raw / _operand(y))

    def gelu(self, x: Value, form: Gelu = "erf") -> Value:
        if form == "erf":
            return Value(x.raw * (1 + _erf(x.raw / math.sqrt(2))) / 2)
        inner = math.sqrt(2 / math.pi) * (x.raw + 0.044715 * x.raw**3)
        return Value(x.raw * (1 + np.tanh(inner)) / 2)

    def relu(self, x: Value) -> Value:
        return Value(np.where(x.raw < 0, 0, x.raw))

    def silu(self, x: Value) -> Value:
        return Value(x.raw * self.sigmoid(x).raw)

    def tanh(self, x: Value) -> Value:
        return Value(np.tanh(x.raw))

    def sigmoid(self, x: Value) -> Value:
        return Value(1 / (1 + np.exp(-x.raw)))

    def sqrt(self, x: Value) -> Value:
        return Value(np.sqrt(x.raw))

    def exp(self, x: Value) -> Value:
        return Value(np.exp(x.raw))

    def log1p(self, x: Value) -> Value:
        return Value(np.log1p(x.raw))

    def round(self, x: Value) -> Value:
        return Value(np.round(x.raw))

    def softmax(self, x: Value) -> Value:
        return Value(_softmax(x.raw))

    def sum(self, x: Value) -> Value:
        return Value(x.raw.sum(-1, keepdims=True))

    def mean(self, x: Value) -> Value:
        return Value(x.raw.mean(-1, keepdims=True))

    def max(self, x: Value) -> Value:
        return Value(x.raw.max(-1, keepdims=True))

    def keep_largest(self, x: Value, k: int) -> Value:
        kept = np.zeros_like(x.raw)
        places = np.argsort(-x.raw, -1, kind="stable")[..., :k]
        np.put_along_axis(kept, places, np.take_along_axis(x.raw, places, -1), -1)
        return Value(kept)

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        assert sum(sizes) == x.raw.shape[-1]
        return [Value(part) for part in np.split(x.raw, np.cumsum(sizes)[:-1], -1)]

    def concat(self, xs: Sequence[Value]) -> Value:
        return Value(np.concatenate([x.raw for x in xs], -1))

    def heads(self, x: Value, n: int) -> Value:
        *outer, width = x.raw.shape
        return Value(x.raw.reshape(*outer, n, width // n))

    def merge(self, x: Value) -> Value:
        *outer, n, width = x.raw.shape
        return Value(x.raw.reshape(*outer, n * width))

    def positions(self, layout: Layout) -> Value:
        sequences = _sequences(layout)
        return Value(sequences.join([np.arange(n) for n in sequences.lengths], padding=0))

    def shift(self, x: Value, by: int, layout: Layout) -> Value:
        sequences = _sequences(layout)
        return Value(sequences.join([_shift(one, by) for one in sequences.split(x.raw)]))

    def rope(self, x: Value, rope: Rope, layout: Layout) -> Value:
        sequences = _sequences(layout)
        return Value(sequences.join([_rotate(one, rope) for one in sequences.split(x.raw)]))

    def attention(self, q: Value, k: Value, v: Value, spec: AttentionSpec, layout: Layout) -> Value:
        sequences = _sequences(layout)
        each = zip(*(sequences.split(x.raw) for x in (q, k, v)), sequences.seen, strict=True)
        return Value(sequences.join([_attend(q, k[:seen], v[:seen], spec) for q, k, v, seen in each]))

    def disentangled_attention(self, q: Value, k: Value, v: Value, spec: DisentangledSpec, layout: Layout) -> Value:
        sequences = _sequences(layout)
        each = zip(*(sequences.split(x.raw) for x in (q, k, v)), sequences.seen, strict=True)
        return Value(sequences.join([_attend_disentangled(q, k[:seen], v[:seen], spec) for q, k, v, seen in each]))

    def pool(self, x: Value, pooling: Pooling, layout: Layout) -> Value:
        return Value(np.stack([_pool(one, pooling) for one in _sequences(layout).split(x.raw)]))

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, eps: float) -> Value:
        mean, variance = x.raw.mean(-1, keepdims=True), x.raw.var(-1, keepdims=True)
        scaled = (x.raw - mean) / np.sqrt(variance + eps) * weight.raw
        return Value(scaled if bias is None else scaled + bias.raw)

    def rms_norm(self, x: Value, weight: Value, eps: float) -> Value:
        return Value(x.raw / np.sqrt(np.mean(x.raw**2, -1, keepdims=True) + eps) * weight.raw)

    def l2_normalize(self, x: Value) -> Value:
        return Value(x.raw / np.linalg.norm(x.raw, axis=-1, keepdims=True))


def _operand(y: Value | float) -> Any:
    return y.raw if isinstance(y, Value) else y


def _sequences(layout: Layout) -> Sequences:
    assert isinstance(layout.raw, Sequences)
    return layout.raw


def _softmax(x: Array) -> Array:
    with np.errstate(invalid="ignore"):  # of nothing: NaN
        powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _shift(x: Array, by: int) -> Array:
    """x `[n, D]` of one sequence: row i is row i + by of x."""
    shifted = np.zeros_like(x)
    for i in range(len(x)):
        if 0 <= i + by < len(x):
            shifted[i] = x[i + by]
    return shifted


def _rotate(x: Array, rope: Rope) -> Array:
    """x `[n, N, H]` of one sequence: each pair of channels as a complex number, turned by its angle."""
    half = len(rope.inverse_frequencies)
    turn = rope.scale * np.exp(1j * np.outer(np.arange(len(x)), rope.frequencies(len(x))))[:, None]
    if rope.growth is not None:
        steps = [math.log(1 + math.floor(position / rope.growth.trained)) for position in range(len(x))]
        turn = turn * (1 + rope.growth.beta * np.array(steps))[:, None, None]
    turned = (x[..., :half] + 1j * x[..., half : 2 * half]) * turn
    return np.concatenate([turned.real, turned.imag, x[..., 2 * half :]], -1)


def _attend(q: Array, k: Array, v: Array, spec: AttentionSpec) -> Array:
    """One sequence, head by head: q `[n, N, H]`, k and v `[m, N', H]` of its first m tokens.

    Where k and v have fewer heads, several of q share one.
    """
    n, heads, width = q.shape
    group = heads // k.shape[1]
    scale = 1 / math.sqrt(width) if spec.scale is None else spec.scale
    distance = np.arange(len(k))[None, :] - np.arange(n)[:, None]  # key minus query
    hidden = np.zeros(distance.shape, bool)
    if spec.causal:
        hidden |= distance > 0
    if spec.window is not None:
        hidden |= np.abs(distance) > spec.window
    out = np.empty_like(q)
    for head in range(heads):
        scores = scale * q[:, head] @ k[:, head // group].T
        if spec.cap is not None:
            scores = spec.cap * np.tanh(scores / spec.cap)
        if spec.bias is not None:
            reach = spec.bias.reach
            scores = scores + spec.bias.table.raw[reach + np.clip(distance, -reach, reach), head]
        if spec.alibi is not None:
            scores = scores - spec.alibi[head] * np.abs(distance)
        out[:, head] = _softmax(np.where(hidden, -np.inf, scores)) @ v[:, head // group]
    return np.where(hidden.all(1)[:, None, None], 0, out)


def _attend_disentangled(q: Array, k: Array, v: Array, spec: DisentangledSpec) -> Array:
    """One sequence, token by token: q `[n, N, H]`, k, v `[m, N, H]` of its first m tokens."""
    n, heads, _ = q.shape
    reach = (len(spec.rows) - 1) // 2
    scores = np.empty((n, len(k), heads))
    for i in range(n):
        for j in range(len(k)):
            r = spec.rows[reach + min(max(i - j, -reach), reach)]
            scores[i, j] = (q[i] * k[j]).sum(-1)
            if spec.keys is not None:
                scores[i, j] += (q[i] * spec.keys.raw[r]).sum(-1)
            if spec.queries is not None:
                scores[i, j] += (spec.queries.raw[r] * k[j]).sum(-1)
    weights = _softmax(spec.scale * scores.transpose(2, 0, 1))
    return np.einsum("hij,jhd->ihd", weights, v)


def _pool(x: Array, pooling: Pooling) -> Array:
    """x `[n, D]` of one sequence -> `[D]`."""
    n = len(x)
    match pooling:
        case Pooling.CLS:
            return x[0]
        case Pooling.LAST_TOKEN:
            return x[-1]
        case Pooling.MEAN:
            return x.mean(0)
        case Pooling.MAX:
            return x.max(0)
        case Pooling.MEAN_SQRT_LEN:
            return x.sum(0) / math.sqrt(n)
        case Pooling.WEIGHTED_MEAN:
            return np.average(x, axis=0, weights=np.arange(1, n + 1))
        case Pooling.SPLADE:
            return np.log1p(np.maximum(x, 0)).max(0)
        case Pooling.SPLADE_LOG1P:
            return np.log1p(np.log1p(np.maximum(x, 0))).max(0)
        case Pooling.SPLADE_SUM:
            return np.log1p(np.maximum(x, 0)).sum(0)
        case Pooling.SPLADE_SUM_LOG1P:
            return np.log1p(np.log1p(np.maximum(x, 0))).sum(0)
