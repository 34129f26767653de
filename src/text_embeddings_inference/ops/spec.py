"""The operations model code may use: names, shapes, meaning. Engines implement them; models know nothing else.

Values are opaque: a node of a graph on one engine, an array on another. Every operation acts on the last axis alone and
keeps the others (written `*`), so one model file serves padded `[B, S, D]` and packed `[T, D]` batches. Only the
operations that take a `Layout` (positions, attention, pool) know where a sequence begins and ends.

Letters: `B` sequences, `S` the longest, `T` all tokens, `D` width, `N` heads, `H` a head's width, `V` rows of a table,
`R` the part of a head that is rotated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import Pooling


class Value:
    """An engine's value. It can only be handed to operations: a graph node has no truth value, no items, no length."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("an engine's value can only be handed to operations: it has no truth value, items or length")

    __bool__ = __iter__ = __len__ = __getitem__ = __contains__ = _refuse


class Layout:
    """Where the sequences of a batch lie, and which of their tokens are seen in attention (`Batch.attended`).

    Made by the engine together with the inputs, opaque to models.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model is called with: token ids and token types `[*]` (integers), and their layout."""

    input_ids: Value
    type_ids: Value
    layout: Layout


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """A bias per head added to the attention scores, by the signed distance of key and query.

    table: `[2R + 1, N]`; row `R + d` is for a key `d` tokens after its query, distances beyond `R` count as `R`.
    """

    table: Value
    reach: int


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """How scores become weights: softmax(cap(scale * q k^T) + bias, over the keys that may be seen).

    scale: None for 1 / sqrt(H); cap: a score x becomes cap * tanh(x / cap) before anything is added (Gemma 2,
    arXiv:2408.00118), None for no bound; causal: a token sees itself and what is before it; window: it sees at most
    this many tokens to either side (with causal: before it), None for all; bias: see RelativeBias; alibi: a slope for
    each head, the score falls by it per token of distance, in both directions (Press et al., arXiv:2108.12409).
    """

    scale: float | None = None
    causal: bool = False
    window: int | None = None
    bias: RelativeBias | None = None
    alibi: tuple[float, ...] | None = None
    cap: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DisentangledSpec:
    """Attention scores with learned vectors for distances (He et al., DeBERTa, arXiv:2006.03654).

    The score of query token i for key token j of the same sequence is

        scale * (q_i . k_j  +  q_i . keys[r]  +  queries[r] . k_j),    r = rows[R + clip(i - j, -R, R)]

    head by head; the weights are its softmax over all tokens j of the sequence.

    rows: int32 `[2R + 1]`, numbers of rows of the two tables; keys, queries: `[P, N, H]`, None: that term is left out.
    """

    scale: float
    rows: NDArray[np.int32]
    keys: Value | None = None
    queries: Value | None = None


@dataclass(frozen=True, slots=True)
class DynamicNTK:
    """Sequences longer than the trained length turn with a larger base, each by its own length (see `Rope`)."""

    factor: float
    trained: int
    """Tokens."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What is turned grows with its position, by 1 + beta ln(1 + floor(position / trained)).

    Of queries: attention becomes the sharper, the more tokens there are (`llama_4_scaling_beta` of Ministral 3).
    """

    beta: float
    trained: int
    """Tokens; nothing grows within as many."""

    def factors(self, positions: int) -> NDArray[np.float64]:
        """Of the first positions, `[positions]`."""
        return np.asarray(1 + self.beta * np.log1p(np.arange(positions) // self.trained), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """Rotary positions (Su et al., arXiv:2104.09864): channels i and i + R/2 of a head turn as a pair."""

    inverse_frequencies: NDArray[np.float64]
    """`[R/2]`, radians per position."""
    scale: float = 1.0
    """Of sine and cosine (YaRN's attention factor)."""
    dynamic: DynamicNTK | None = None
    """None: all sequences turn alike."""
    growth: Growth | None = None
    """None: lengths stay as they are. Channels that do not turn do not grow either."""

    def depends_on_length(self, longest: int) -> bool:
        """Whether sequences of up to `longest` tokens turn differently."""
        return self.dynamic is not None and longest > self.dynamic.trained

    def frequencies(self, length: int) -> NDArray[np.float64]:
        """Radians per position in a sequence of so many tokens, `[R/2]`.

        A base `theta (1 + factor (length / trained - 1))^(R / (R - 2))` divides pair i's by the part in brackets to
        the power of 2i / (R - 2) (Transformers' `_compute_dynamic_ntk_parameters`).
        """
        if self.dynamic is None or length <= self.dynamic.trained:
            return self.inverse_frequencies
        growth, last = 1 + self.dynamic.factor * (length / self.dynamic.trained - 1), len(self.inverse_frequencies) - 1
        return self.inverse_frequencies * growth ** -(np.arange(last + 1) / last)

    def table(self, length: int, positions: int | None = None) -> NDArray[np.float32]:
        """Cosine and sine of the first positions of a sequence of `length` tokens, `[2, positions or length, R/2]`."""
        positions = length if positions is None else positions
        angles = np.outer(np.arange(positions), self.frequencies(length))
        scale = self.scale if self.growth is None else self.scale * self.growth.factors(positions)[:, None]
        return np.asarray(np.stack([np.cos(angles), np.sin(angles)]) * scale, np.float32)


Gelu = Literal["erf", "tanh"]


class Constants(Protocol):
    """What building a model needs of an engine; all else is needed when it runs."""

    max_length: int
    """Tokens of the longest sequence that will come."""

    @abstractmethod
    def constant(self, array: NDArray[Any]) -> Value:
        """A tensor of the checkpoint, or one computed from them at load, as a value of the engine.

        The array is kept, not copied, where the engine can compute from it as it is.
        """


class Ops(Constants, ABC):
    """One engine's operations. Base operations are abstract; fused ones have a composite an engine may override."""

    @abstractmethod
    def embedding(self, table: Value, ids: Value) -> Value:
        """Rows of a table: table `[V, D]`, ids `[*]` -> `[*, D]`."""

    @abstractmethod
    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        """x W^T + b: x `[*, I]`, weight `[O, I]`, bias `[O]` -> `[*, O]`."""

    @abstractmethod
    def add(self, x: Value, y: Value | float) -> Value:
        """x + y, `[*, D]`; y may be `[D]`, a number, or of size 1 along any axis."""

    @abstractmethod
    def sub(self, x: Value, y: Value | float) -> Value:
        """x - y, shapes as in `add`."""

    @abstractmethod
    def mul(self, x: Value, y: Value | float) -> Value:
        """x * y, shapes as in `add`."""

    @abstractmethod
    def div(self, x: Value, y: Value | float) -> Value:
        """x / y, shapes as in `add`."""

    @abstractmethod
    def gelu(self, x: Value, form: Gelu = "erf") -> Value:
        """x * Phi(x), exactly, or by the tanh approximation (Hendrycks & Gimpel, arXiv:1606.08415)."""

    @abstractmethod
    def relu(self, x: Value) -> Value:
        """max(x, 0)."""

    @abstractmethod
    def silu(self, x: Value) -> Value:
        """x * sigmoid(x)."""

    @abstractmethod
    def tanh(self, x: Value) -> Value:
        """Hyperbolic tangent."""

    @abstractmethod
    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + e^-x)."""

    @abstractmethod
    def sqrt(self, x: Value) -> Value:
        """Square root."""

    @abstractmethod
    def exp(self, x: Value) -> Value:
        """e^x."""

    @abstractmethod
    def log1p(self, x: Value) -> Value:
        """ln(1 + x)."""

    @abstractmethod
    def round(self, x: Value) -> Value:
        """The nearest integer, halves to the even one."""

    @abstractmethod
    def softmax(self, x: Value) -> Value:
        """Softmax over the last axis."""

    @abstractmethod
    def sum(self, x: Value) -> Value:
        """Sum over the last axis, kept: `[*, D]` -> `[*, 1]`."""

    @abstractmethod
    def mean(self, x: Value) -> Value:
        """Mean over the last axis, kept: `[*, D]` -> `[*, 1]`."""

    @abstractmethod
    def max(self, x: Value) -> Value:
        """Largest over the last axis, kept: `[*, D]` -> `[*, 1]`."""

    @abstractmethod
    def keep_largest(self, x: Value, k: int) -> Value:
        """The k largest of the last axis where they are, 0 elsewhere: `[*, D]` -> `[*, D]`."""

    @abstractmethod
    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        """Parts of the last axis, of the given sizes."""

    @abstractmethod
    def concat(self, xs: Sequence[Value]) -> Value:
        """Joined along the last axis."""

    @abstractmethod
    def heads(self, x: Value, n: int) -> Value:
        """`[*, N*H]` -> `[*, N, H]`."""

    @abstractmethod
    def merge(self, x: Value) -> Value:
        """`[*, N, H]` -> `[*, N*H]`."""

    @abstractmethod
    def positions(self, layout: Layout) -> Value:
        """0, 1, 2, ... within each sequence, as ids for `embedding`: `[*]`, or of size 1 along the batch."""

    @abstractmethod
    def shift(self, x: Value, by: int, layout: Layout) -> Value:
        """Each token gets what the token `by` places after it in its sequence has, zeros where there is none."""

    @abstractmethod
    def rope(self, x: Value, rope: Rope, layout: Layout) -> Value:
        """Turns each pair of channels by position times frequency: x `[*, N, H]`; channels from R on stay as they are.

        (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)."""

    @abstractmethod
    def attention(self, q: Value, k: Value, v: Value, spec: AttentionSpec, layout: Layout) -> Value:
        """Scaled dot-product attention within each sequence: q, k, v `[*, N, H]` -> `[*, N, H]`.

        No token sees the padding, another sequence, or a token that is not attended; one that sees none at all, as its
        window ends before them, gets zeros, as in PyTorch. k and v may have fewer heads (grouped queries)."""

    @abstractmethod
    def disentangled_attention(self, q: Value, k: Value, v: Value, spec: DisentangledSpec, layout: Layout) -> Value:
        """Attention within each sequence by the scores of `DisentangledSpec`: q, k, v `[*, N, H]` -> `[*, N, H]`.

        No token sees the padding, another sequence, or a token that is not attended."""

    @abstractmethod
    def pool(self, x: Value, pooling: Pooling, layout: Layout) -> Value:
        """One vector for each sequence: `[*, D]` -> `[B, D]`.

        `splade` is max over the tokens of y = ln(1 + relu(x)) (Formal et al., arXiv:2109.10086), `splade_log1p` of
        ln(1 + y) (Geng et al., arXiv:2504.14839); `splade_sum` and `splade_sum_log1p` are the sums of the same.
        """

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, eps: float) -> Value:
        """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al., arXiv:1607.06450)."""
        centred = self.sub(x, self.mean(x))
        deviation = self.sqrt(self.add(self.mean(self.mul(centred, centred)), eps))
        scaled = self.mul(self.div(centred, deviation), weight)
        return scaled if bias is None else self.add(scaled, bias)

    def rms_norm(self, x: Value, weight: Value, eps: float) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich, arXiv:1910.07467)."""
        return self.mul(self.div(x, self.sqrt(self.add(self.mean(self.mul(x, x)), eps))), weight)

    def l2_normalize(self, x: Value) -> Value:
        """x / |x| over the last axis."""
        return self.div(x, self.sqrt(self.sum(self.mul(x, x))))

    def experts(
        self, x: Value, gates: Value, up: Sequence[Value], down: Sequence[Value], act: Callable[[Ops, Value], Value]
    ) -> Value:
        """The sum over experts of gate * act(x Up^T) Down^T; one whose gate is 0 need not be computed for that token.

        x `[*, D]`, gates `[*, E]`, up `E` times `[I, D]`, down `E` times `[D, I]` -> `[*, D]`.
        """
        networks = zip(self.split(gates, [1] * len(up)), up, down, strict=True)
        return reduce(
            self.add, [self.mul(self.linear(act(self, self.linear(x, u)), d), gate) for gate, u, d in networks]
        )
