from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from oracle.parameters import (
    OPS,
    apply,
    attention_shapes,
    linear_shapes,
    norm_shapes,
    normed,
    packed,
    parameters,
    values,
)
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.nn.layers import (
    ACTIVATIONS,
    ATTENTION,
    GATED,
    Conv1d,
    Embedding,
    Experts,
    FeedForward,
    GatedFeedForward,
    Heads,
    LayerNorm,
    Linear,
    PositionEmbedding,
    PostNormBlock,
    PreNormBlock,
    RMSNorm,
    SelfAttention,
    TokenWise,
    TypedEmbedding,
    activation,
    relative_bias,
    t5_bucket,
)
from text_embeddings_inference.ops.spec import AttentionSpec, Inputs, Rope, Value


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def gelu_tanh(x: float) -> float:
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


FORMULAS: dict[str, Callable[[float], float]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "tanh": math.tanh,
    "sigmoid": sigmoid,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    points = [-3.0, -0.5, 0.0, 0.25, 2.0]
    result = activation("hidden_act", name)(OPS, Value(np.array(points))).raw
    assert np.allclose(result, [FORMULAS[name](x) for x in points], rtol=0, atol=1e-12)


def test_unknown_activation() -> None:
    with pytest.raises(UnsupportedError, match="`hidden_act` is 'mish'") as caught:
        activation("hidden_act", "mish")
    assert all(name in str(caught.value) for name in ACTIVATIONS)


def test_linear() -> None:
    p, w = parameters(**linear_shapes("x", 3, 2))
    x = values(4, 3)
    assert np.allclose(Linear(p / "x", 3, 2)(OPS, Value(x)).raw, apply(x, w, "x"))
    assert np.allclose(Linear(p / "x", 3, 2, bias=False)(OPS, Value(x)).raw, x @ w["x.weight"].T)


def test_linear_of_another_shape() -> None:
    p, _ = parameters(**linear_shapes("x", 3, 2))
    with pytest.raises(CheckpointError, match=r"`x\.weight` has shape \[2, 3\]"):
        Linear(p / "x", 2, 3)


def test_embedding() -> None:
    p, w = parameters(x__weight=(5, 2))
    assert np.array_equal(Embedding(p / "x", 5, 2)(OPS, Value(np.array([4, 0, 4]))).raw, w["x.weight"][[4, 0, 4]])


@pytest.mark.parametrize(("first", "longest"), [(0, 5), (2, 3)])
def test_a_table_of_positions_takes_no_more_than_it_has(first: int, longest: int) -> None:
    p, w = parameters(max_length=longest, x__weight=(5, 2))
    table = PositionEmbedding(p / "x", 5, 2, first=first)
    assert np.array_equal(table(OPS, packed(longest, 1)).raw, w["x.weight"][[*range(first, 5), first]])
    p, _ = parameters(max_length=longest + 1, x__weight=(5, 2))
    with pytest.raises(UnsupportedError, match=f"longer than the table of {longest} positions"):
        PositionEmbedding(p / "x", 5, 2, first=first)


def test_layer_norm() -> None:
    p, w = parameters(**norm_shapes("x", 6))
    x = values(4, 6)
    assert np.allclose(LayerNorm(p / "x", 6, 1e-3)(OPS, Value(x)).raw, normed(x, w, "x", 1e-3))
    without = normed(x, w, "x", 1e-3) - w["x.bias"]
    assert np.allclose(LayerNorm(p / "x", 6, 1e-3, bias=False)(OPS, Value(x)).raw, without)


def test_rms_norm() -> None:
    p, w = parameters(x__weight=(6,))
    x = values(4, 6)
    scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3)
    assert np.allclose(RMSNorm(p / "x", 6, 1e-3)(OPS, Value(x)).raw, scaled * w["x.weight"])
    assert np.allclose(RMSNorm(p / "x", 6, 1e-3, offset=1)(OPS, Value(x)).raw, scaled * (1 + w["x.weight"]))


@pytest.mark.parametrize("normed_heads", [False, True], ids=["plain", "norms"])
def test_rotary_attention(normed_heads: bool) -> None:
    """Four heads of queries on two of keys, over two tokens, the second turned by a quarter: (a, b) -> (-b, a)."""
    heads = Heads(queries=4, keys=2, width=2)
    shapes = linear_shapes("query", 6, 8) | linear_shapes("key", 6, 4) | linear_shapes("value", 6, 4)
    norms = {"query_norm__weight": (2,), "key_norm__weight": (2,)} if normed_heads else {}
    p, w = parameters(**shapes, **linear_shapes("output", 8, 6), **norms)
    x = values(2, 6)
    q, k = apply(x, w, "query").reshape(2, 4, 2), apply(x, w, "key").reshape(2, 2, 2)
    if normed_heads:
        q = q / np.sqrt((q**2).mean(-1, keepdims=True) + 1e-3) * w["query_norm.weight"]
        k = k / np.sqrt((k**2).mean(-1, keepdims=True) + 1e-3) * w["key_norm.weight"]
    q[1], k[1] = (np.stack([-turned[..., 1], turned[..., 0]], -1) for turned in (q[1], k[1]))
    k, v = (part.repeat(2, axis=1) for part in (k, apply(x, w, "value").reshape(2, 2, 2)))
    weights = np.exp(np.einsum("qnh,knh->nqk", q, k) / math.sqrt(2))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("nqk,knh->qnh", weights, v).reshape(2, 8)
    head_norm = (lambda p, width: RMSNorm(p, width, 1e-3)) if normed_heads else None
    attention = SelfAttention(p, 6, heads, rope=Rope(np.array([math.pi / 2])), head_norm=head_norm)
    assert np.allclose(attention(OPS, Value(x), AttentionSpec(), packed(2)).raw, apply(mixed, w, "output"))


@pytest.mark.parametrize("biases", [(), ("value",), ("output",), ATTENTION])
def test_attention_with_some_biases(biases: tuple[str, ...]) -> None:
    """One token's result is its value; heads of another width than D / N, as in T5."""
    names = [("query", 4, 6), ("key", 4, 6), ("value", 4, 6), ("output", 6, 4)]
    shapes = {key: shape for name in names for key, shape in linear_shapes(*name).items()}
    p, w = parameters(**shapes)
    x = values(3, 4)
    attention = SelfAttention(p, 4, Heads(queries=2, keys=2, width=3), rope=Rope(np.array([1.0])), biases=biases)
    value = x @ w["value.weight"].T + w["value.bias"] * ("value" in biases)
    expected = value @ w["output.weight"].T + w["output.bias"] * ("output" in biases)
    assert np.allclose(attention(OPS, Value(x), AttentionSpec(), packed(1, 1, 1)).raw, expected)


def test_key_heads_have_to_divide_the_heads() -> None:
    with pytest.raises(
        UnsupportedError, match="`num_key_value_heads` is 3, which does not divide the 4 attention heads"
    ):
        Heads(queries=4, keys=3, width=8)


def test_attention_of_one_token_is_its_value() -> None:
    p, w = parameters(**attention_shapes("", 6))
    x = values(3, 6)
    result = SelfAttention(p, 6, Heads.of(6, 2))(OPS, Value(x), AttentionSpec(), packed(1, 1, 1)).raw
    assert np.allclose(result, apply(apply(x, w, "value"), w, "output"))


def test_attention_keeps_its_heads_apart() -> None:
    """Softmax of q k / sqrt(H), head by head, over two tokens."""
    p, w = parameters(**attention_shapes("", 6))
    x = values(2, 6)
    q, k, v = (apply(x, w, name).reshape(2, 2, 3) for name in ("query", "key", "value"))
    scores = np.einsum("qnh,knh->nqk", q, k) / math.sqrt(3)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = np.einsum("nqk,knh->qnh", weights, v).reshape(2, 6)
    result = SelfAttention(p, 6, Heads.of(6, 2))(OPS, Value(x), AttentionSpec(), packed(2)).raw
    assert np.allclose(result, apply(mixed, w, "output"))


def test_attention_heads_have_to_divide_the_width() -> None:
    with pytest.raises(UnsupportedError, match="4 attention heads do not divide a width of 6"):
        Heads.of(6, 4)


def test_post_norm_block() -> None:
    shapes = attention_shapes("attention__", 4) | linear_shapes("up", 4, 8) | linear_shapes("down", 8, 4)
    p, w = parameters(**shapes, **norm_shapes("attention_norm", 4), **norm_shapes("output_norm", 4))
    x = values(2, 4)
    attention = SelfAttention(p / "attention", 4, Heads.of(4, 2))
    feed_forward = FeedForward(p, 4, 8, ACTIVATIONS["relu"])
    block = PostNormBlock(p, attention, feed_forward, 4, 1e-5)
    result = block(OPS, Value(x), AttentionSpec(), packed(1, 1)).raw
    attended = apply(apply(x, w, "attention.value"), w, "attention.output")
    half = normed(x + attended, w, "attention_norm", 1e-5)
    fed = apply(np.maximum(apply(half, w, "up"), 0), w, "down")
    assert np.allclose(result, normed(half + fed, w, "output_norm", 1e-5))


def times(factor: float) -> TokenWise:
    """In place of a norm."""
    return lambda ops, x: ops.mul(x, factor)


def test_pre_norm_block() -> None:
    p, w = parameters(**attention_shapes("", 4), **linear_shapes("up", 4, 8), **linear_shapes("down", 8, 4))
    x = values(2, 4)
    attention, feed_forward = SelfAttention(p, 4, Heads.of(4, 2)), FeedForward(p, 4, 8, ACTIVATIONS["relu"])
    block = PreNormBlock(times(2), attention, times(3), feed_forward)
    result = block(OPS, Value(x), AttentionSpec(), packed(1, 1)).raw
    half = x + apply(apply(2 * x, w, "value"), w, "output")
    assert np.allclose(result, half + apply(np.maximum(apply(3 * half, w, "up"), 0), w, "down"))


@pytest.mark.parametrize("types", [0, 1, 2])
def test_typed_embedding(types: int) -> None:
    """Two types are told apart; a single one is every token's, whatever the tokenizer says."""
    p, w = parameters(word__weight=(5, 4), type__weight=(types, 4), **norm_shapes("norm", 4))
    ids, type_ids = np.array([4, 0, 4]), np.array([0, 0, 1])
    x = w["word.weight"][ids]
    if types:
        x = x + w["type.weight"][type_ids if types == 2 else [0, 0, 0]]
    result = TypedEmbedding(p, 5, types, 4, 1e-5)(OPS, Inputs(Value(ids), Value(type_ids), packed(3))).raw
    assert np.allclose(result, normed(x, w, "norm", 1e-5))


def test_relative_bias() -> None:
    """Row R + d is the bias of the bucket of distance d."""
    p, w = parameters(x__weight=(8, 3))
    bias = relative_bias(p / "x", 8, 3, 20)
    assert bias.reach == 20
    assert np.array_equal(bias.table.raw, w["x.weight"][t5_bucket(np.arange(-20, 21), 8, 20)])


def reference_bucket(distance: int, buckets: int = 32, max_distance: int = 128) -> int:
    """`MPNetEncoder.relative_position_bucket`, for one distance (key minus query)."""
    half = buckets // 2
    ahead = half if distance > 0 else 0
    n = abs(distance)
    exact = half // 2
    if n < exact:
        return ahead + n
    return ahead + min(exact + int(math.log(n / exact) / math.log(max_distance / exact) * (half - exact)), half - 1)


def test_t5_bucket_against_the_formula() -> None:
    """Without the distances whose logarithm is a whole number, where rounding decides: they are checked below."""
    borders = {8, 16, 32, 64, 128}
    distances = [d for d in range(-300, 301) if abs(d) not in borders]
    result = t5_bucket(np.array(distances), 32, 128)
    assert result.tolist() == [reference_bucket(d) for d in distances]


def test_t5_bucket_at_the_borders() -> None:
    """The first distance of each bucket belongs to it: the logarithm must not be rounded below a whole number."""
    distances = np.array([-128, -64, -32, -16, -8, 0, 8, 16, 32, 64, 128])
    assert t5_bucket(distances, 32, 128).tolist() == [15, 14, 12, 10, 8, 0, 24, 26, 28, 30, 31]


def test_gated_feed_forward() -> None:
    shapes = linear_shapes("gate", 4, 8) | linear_shapes("up", 4, 8) | linear_shapes("down", 8, 4)
    p, w = parameters(**shapes)
    x = values(3, 4)
    gated = np.maximum(apply(x, w, "gate"), 0) * apply(x, w, "up")
    block = GatedFeedForward(p, 4, 8, ACTIVATIONS["relu"], biases=GATED)
    assert np.allclose(block(OPS, Value(x)).raw, apply(gated, w, "down"))
    bare = (np.maximum(x @ w["gate.weight"].T, 0) * (x @ w["up.weight"].T)) @ w["down.weight"].T
    assert np.allclose(GatedFeedForward(p, 4, 8, ACTIVATIONS["relu"])(OPS, Value(x)).raw, bare)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_experts(k: int) -> None:
    """Token by token: its k likeliest networks, each times its likelihood among all three, and one bias."""
    shapes = {"up.weight": (15, 4), "down.weight": (15, 4), "bias": (4,)}
    p, w = parameters(router__weight=(3, 4), **{f"experts__{name.replace('.', '__')}": s for name, s in shapes.items()})
    x = values(6, 4)
    expected = np.empty((6, 4))
    for token, result in zip(x, expected, strict=True):
        scores = np.exp(w["router.weight"] @ token)
        result[:] = w["experts.bias"]
        for expert in np.argsort(-scores)[:k]:
            rows = slice(5 * expert, 5 * expert + 5)
            hidden = np.maximum(w["experts.up.weight"][rows] @ token, 0)
            result += scores[expert] / scores.sum() * (hidden @ w["experts.down.weight"][rows])
    assert np.allclose(Experts(p, 4, 5, 3, k, ACTIVATIONS["relu"])(OPS, Value(x)).raw, expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_conv1d(taps: int, groups: int) -> None:
    """Token by token and tap by tap: zeros beyond the ends of a sequence, each output sees its group of channels."""
    p, weights = parameters(conv__weight=(6, 4 // groups, taps), conv__bias=(6,))
    weight, bias = weights["conv.weight"], weights["conv.bias"]
    x, expected = values(7, 4), np.tile(bias, (7, 1))
    for first, end in ((0, 5), (5, 7)):
        for token in range(first, end):
            for out in range(6):
                own = slice(out * groups // 6 * (4 // groups), (out * groups // 6 + 1) * (4 // groups))
                for tap in range(taps):
                    source = token + tap - taps // 2
                    if first <= source < end:
                        expected[token, out] += weight[out, :, tap] @ x[source, own]
    actual = Conv1d(p / "conv", 4, 6, taps, groups=groups)(OPS, Value(x), packed(5, 2))
    assert np.allclose(actual.raw, expected, atol=1e-12)


def test_conv1d_groups_have_to_divide_the_channels() -> None:
    p, _ = parameters(conv__weight=(6, 1, 3), conv__bias=(6,))
    with pytest.raises(UnsupportedError, match="3 groups"):
        Conv1d(p / "conv", 4, 6, 3, groups=3)
