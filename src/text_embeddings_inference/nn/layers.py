"""The layers models are made of, written once on `ops`. Each takes its `Parameters` and the sizes it expects.

Letters: `D` model, `N` heads, `H` a head, `V` vocabulary; `*` is `B, S` (padded) or `T` (packed).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..ops.spec import AttentionSpec, Inputs, Layout, Ops, RelativeBias, Rope, Value
from .parameters import QKV, Parameters

Activation = Callable[[Ops, Value], Value]
TokenWise = Callable[[Ops, Value], Value]
"""`[*, D]` -> `[*, D]`, each token by itself."""
SequenceWise = Callable[[Ops, Value, AttentionSpec, Layout], Value]
"""`[*, D]` -> `[*, D]`, tokens of one sequence together."""

ATTENTION = (*QKV, "output")
"""The products of an attention."""
GATED = ("gate", "up", "down")
"""The products of a gated feed-forward network."""

ACTIVATIONS: dict[str, Activation] = {
    "gelu": lambda ops, x: ops.gelu(x),
    "gelu_python": lambda ops, x: ops.gelu(x),
    "gelu_new": lambda ops, x: ops.gelu(x, "tanh"),
    "gelu_fast": lambda ops, x: ops.gelu(x, "tanh"),
    "gelu_pytorch_tanh": lambda ops, x: ops.gelu(x, "tanh"),
    "quick_gelu": lambda ops, x: ops.mul(x, ops.sigmoid(ops.mul(x, 1.702))),
    "relu": lambda ops, x: ops.relu(x),
    "silu": lambda ops, x: ops.silu(x),
    "swish": lambda ops, x: ops.silu(x),
    "tanh": lambda ops, x: ops.tanh(x),
    "sigmoid": lambda ops, x: ops.sigmoid(x),
    "identity": lambda ops, x: x,
}
"""By their names in config.json (Transformers' `ACT2FN`); `gelu` is the exact form."""


def activation(key: str, name: str) -> Activation:
    """The activation that config.json names under `key`; UnsupportedError if there is none of that name."""
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"config.json: `{key}` is {name!r}; supported are {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]


class Linear:
    """x W^T + b: `[*, I]` -> `[*, O]`."""

    def __init__(self, p: Parameters, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.weight = p.tensor("weight", (outputs, inputs))
        self.bias = p.tensor("bias", (outputs,)) if bias else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.linear(x, self.weight, self.bias)


class Embedding:
    """Rows of a table `[V, D]`."""

    def __init__(self, p: Parameters, rows: int, width: int) -> None:
        self.table = p.tensor("weight", (rows, width))

    def __call__(self, ops: Ops, ids: Value) -> Value:
        return ops.embedding(self.table, ids)


class PositionEmbedding:
    """A row of a table for each token, by its position: `[*, D]`, or of size 1 along the batch; first: the first row.

    Raises UnsupportedError where the engine may get sequences that are longer than the table.
    """

    def __init__(self, p: Parameters, rows: int, width: int, *, first: int = 0) -> None:
        if p.max_length > rows - first:
            raise UnsupportedError(
                f"inputs of {p.max_length} tokens are longer than the table of {rows - first} positions",
                hint="set `max_seq_length` in sentence_bert_config.json to as many as there are",
            )
        self.table = p.constant(p.stored("weight", (rows, width))[first:])

    def __call__(self, ops: Ops, layout: Layout) -> Value:
        return ops.embedding(self.table, ops.positions(layout))


class LayerNorm:
    """Over the last axis, with weight and bias `[D]`."""

    def __init__(self, p: Parameters, width: int, eps: float, *, bias: bool = True) -> None:
        self.weight = p.tensor("weight", (width,))
        self.bias = p.tensor("bias", (width,)) if bias else None
        self.eps = eps

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class TypedEmbedding:
    """Word and token type, summed and normed, for models that put positions elsewhere; types: how many, 0 for none."""

    def __init__(self, p: Parameters, rows: int, types: int, width: int, eps: float) -> None:
        self.word = Embedding(p / "word", rows, width)
        self.type = Embedding(p / "type", types, width) if types else None
        self.norm = LayerNorm(p / "norm", width, eps)
        self.n_types = types

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.word(ops, inputs.input_ids)
        if self.type is not None:
            # With a single type the tokenizer's type ids mean nothing: every token has that type.
            x = ops.add(x, self.type(ops, inputs.type_ids) if self.n_types > 1 else self.type.table)
        return self.norm(ops, x)


class RMSNorm:
    """Over the last axis, with a weight `[D]`; offset: added to the weight (1 where it is stored as a difference)."""

    def __init__(self, p: Parameters, width: int, eps: float, *, offset: float = 0.0) -> None:
        weight = p.array("weight", (width,))
        self.weight = p.constant(weight + np.float32(offset) if offset else weight)
        self.eps = eps

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.rms_norm(x, self.weight, self.eps)


class Conv1d:
    """Convolution along each sequence with zeros beyond its ends: `[*, I]` -> `[*, O]`; one product for each tap.

    taps: an odd number, the middle one for the token itself; groups: the channels are cut into so many parts, each
    output sees those of its own.
    """

    def __init__(self, p: Parameters, inputs: int, outputs: int, taps: int, *, groups: int = 1) -> None:
        if inputs % groups or outputs % groups:
            raise UnsupportedError(f"config.json: a convolution's {inputs} channels can't be cut into {groups} groups")
        weight = p.array("weight", (outputs, inputs // groups, taps))
        whole = np.zeros((taps, outputs, inputs), weight.dtype)
        for group in range(groups):
            rows, columns = (slice(group * n // groups, (group + 1) * n // groups) for n in (outputs, inputs))
            whole[:, rows, columns] = weight[rows].transpose(2, 0, 1)
        self.taps = {tap - taps // 2: p.constant(one) for tap, one in enumerate(whole)}
        self.bias = p.tensor("bias", (outputs,))

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        out = ops.linear(x, self.taps[0], self.bias)
        for offset, weight in self.taps.items():
            if offset:
                out = ops.add(out, ops.linear(ops.shift(x, offset, layout), weight))
        return out


@dataclass(frozen=True, slots=True)
class Heads:
    """How an attention is cut into heads.

    Raises UnsupportedError where the heads of queries can't be shared out evenly.
    """

    queries: int
    """`N`"""
    keys: int
    """Heads of keys and values; several of queries share one (Ainslie et al., arXiv:2305.13245)."""
    width: int
    """`H`"""

    def __post_init__(self) -> None:
        if self.queries % self.keys:
            problem = f"`num_key_value_heads` is {self.keys}, which does not divide the {self.queries} attention heads"
            raise UnsupportedError(f"config.json: {problem}")

    @classmethod
    def of(cls, width: int, heads: int) -> Heads:
        """Heads that share out the whole width, each with keys and values of its own."""
        if width % heads:
            raise UnsupportedError(f"config.json: {heads} attention heads do not divide a width of {width}")
        return cls(heads, heads, width // heads)


class SelfAttention:
    """Multi-head self-attention: `[*, D]` -> `[*, D]`."""

    def __init__(
        self,
        p: Parameters,
        width: int,
        heads: Heads,
        *,
        rope: Rope | None = None,
        query_rope: Rope | None = None,
        biases: Collection[str] = ATTENTION,
        head_norm: Callable[[Parameters, int], RMSNorm] | None = None,
    ) -> None:
        """rope: turns queries and keys; query_rope: turns queries in its place; biases: which of the products have one;
        head_norm: makes the norms of each head of queries and keys, which come before the rotation."""
        inner, shared = heads.queries * heads.width, heads.keys * heads.width
        self.query = Linear(p / "query", width, inner, bias="query" in biases)
        self.key = Linear(p / "key", width, shared, bias="key" in biases)
        self.value = Linear(p / "value", width, shared, bias="value" in biases)
        self.output = Linear(p / "output", inner, width, bias="output" in biases)
        self.query_norm = head_norm(p / "query_norm", heads.width) if head_norm else None
        self.key_norm = head_norm(p / "key_norm", heads.width) if head_norm else None
        self.heads = heads
        self.rope = rope
        self.query_rope = query_rope or rope

    def __call__(self, ops: Ops, x: Value, spec: AttentionSpec, layout: Layout) -> Value:
        q, k, v = self.project(ops, x)
        if self.query_norm and self.key_norm:
            q, k = self.query_norm(ops, q), self.key_norm(ops, k)
        if self.rope and self.query_rope:
            q, k = ops.rope(q, self.query_rope, layout), ops.rope(k, self.rope, layout)
        return self.output(ops, ops.merge(ops.attention(q, k, v, spec, layout)))

    def project(self, ops: Ops, x: Value) -> tuple[Value, Value, Value]:
        """Queries, keys and values by head: `[*, N, H]`."""
        q = ops.heads(self.query(ops, x), self.heads.queries)
        k, v = (ops.heads(project(ops, x), self.heads.keys) for project in (self.key, self.value))
        return q, k, v


class FeedForward:
    """down(act(up(x))): `[*, D]` -> `[*, D]`."""

    def __init__(self, p: Parameters, width: int, inner: int, act: Activation, *, bias: bool = True) -> None:
        self.up = Linear(p / "up", width, inner, bias=bias)
        self.down = Linear(p / "down", inner, width, bias=bias)
        self.act = act

    def __call__(self, ops: Ops, x: Value) -> Value:
        return self.down(ops, self.act(ops, self.up(ops, x)))


class GatedFeedForward:
    """act(gate(x)) * up(x), then down: `[*, D]` -> `[*, D]` (Shazeer, arXiv:2002.05202)."""

    def __init__(self, p: Parameters, width: int, inner: int, act: Activation, *, biases: Collection[str] = ()) -> None:
        """biases: which of the products have one."""
        self.gate = Linear(p / "gate", width, inner, bias="gate" in biases)
        self.up = Linear(p / "up", width, inner, bias="up" in biases)
        self.down = Linear(p / "down", inner, width, bias="down" in biases)
        self.act = act

    def __call__(self, ops: Ops, x: Value) -> Value:
        return self.down(ops, ops.mul(self.act(ops, self.gate(ops, x)), self.up(ops, x)))


class Experts:
    """A mixture of experts: the sum of each token's k likeliest feed-forward networks: `[*, D]` -> `[*, D]`.

    They are weighted by their likelihoods among all experts, which are not made to sum to 1.
    """

    def __init__(self, p: Parameters, width: int, inner: int, experts: int, k: int, act: Activation) -> None:
        self.router = Linear(p / "router", width, experts, bias=False)
        p = p / "experts"
        up, down = (p.stored(name, (experts * inner, width)) for name in ("up.weight", "down.weight"))
        self.up = [p.constant(part) for part in np.split(up, experts)]
        self.down = [p.constant(part.T) for part in np.split(down, experts)]
        self.bias = p.tensor("bias", (width,))
        self.k = k
        self.act = act

    def __call__(self, ops: Ops, x: Value) -> Value:
        gates = ops.keep_largest(ops.softmax(self.router(ops, x)), self.k)
        return ops.add(ops.experts(x, gates, self.up, self.down, self.act), self.bias)


class PostNormBlock:
    """The Transformer's encoder block (Vaswani et al., arXiv:1706.03762): each half's sum with its input is normed."""

    def __init__(self, p: Parameters, attention: SequenceWise, feed_forward: TokenWise, width: int, eps: float) -> None:
        self.attention = attention
        self.attention_norm = LayerNorm(p / "attention_norm", width, eps)
        self.feed_forward = feed_forward
        self.output_norm = LayerNorm(p / "output_norm", width, eps)

    def __call__(self, ops: Ops, x: Value, spec: AttentionSpec, layout: Layout) -> Value:
        x = self.attention_norm(ops, ops.add(self.attention(ops, x, spec, layout), x))
        return self.output_norm(ops, ops.add(self.feed_forward(ops, x), x))


class PreNormBlock:
    """A block that keeps its input as it is: each half is added to it, and sees it normed (Xiong, arXiv:2002.04745)."""

    def __init__(
        self, attention_norm: TokenWise, attention: SequenceWise, output_norm: TokenWise, feed_forward: TokenWise
    ) -> None:
        self.attention_norm = attention_norm
        self.attention = attention
        self.output_norm = output_norm
        self.feed_forward = feed_forward

    def __call__(self, ops: Ops, x: Value, spec: AttentionSpec, layout: Layout) -> Value:
        x = ops.add(x, self.attention(ops, self.attention_norm(ops, x), spec, layout))
        return ops.add(x, self.feed_forward(ops, self.output_norm(ops, x)))


LARGEST_DISTANCE = 1 << 16
"""Tokens between two that have a bias of their own; the table has two rows for each distance."""


def t5_bucket(distance: NDArray[np.int64], buckets: int, max_distance: int) -> NDArray[np.int64]:
    """The bucket of each signed distance (key minus query), both directions: exact up close, then logarithmic.

    From T5 (Raffel et al., arXiv:1910.10683); computed in float32, as the checkpoints were trained.
    """
    half = buckets // 2
    exact = half // 2
    reach = np.abs(distance)
    log_ratio = np.log(np.maximum(reach, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(max_distance / exact)
    )
    far = exact + (log_ratio * np.float32(half - exact)).astype(np.int64)
    return np.where(distance > 0, half, 0) + np.where(reach < exact, reach, np.minimum(far, half - 1))


def relative_bias(p: Parameters, buckets: int, heads: int, max_distance: int) -> RelativeBias:
    """The learned bias of each bucket `[buckets, N]`, spread over the distances; constant from max_distance on.

    Raises UnsupportedError for numbers that make no buckets, or a table of distances that is too large.
    """
    if buckets < 4 or not buckets // 4 < max_distance <= LARGEST_DISTANCE:
        raise UnsupportedError(
            f"config.json: {buckets} buckets (`relative_attention_num_buckets`) for distances up to {max_distance} "
            f"(`relative_attention_max_distance`) are not supported",
            hint=f"at least 4 buckets, and a distance above a quarter of them and not above {LARGEST_DISTANCE}",
        )
    by_bucket = p.array("weight", (buckets, heads))
    rows = t5_bucket(np.arange(-max_distance, max_distance + 1), buckets, max_distance)
    return RelativeBias(p.constant(by_bucket[rows]), max_distance)


class Encoder:
    """Token ids `[*]` -> hidden states `[*, D]`: embeddings, then layers in which a token sees all of its sequence."""

    embeddings: Callable[[Ops, Inputs], Value]
    layers: Sequence[SequenceWise]

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.embeddings(ops, inputs)
        for layer in self.layers:
            x = layer(ops, x, AttentionSpec(), inputs.layout)
        return x
