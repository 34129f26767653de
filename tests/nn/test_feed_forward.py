"""The feed-forward networks of `layers`."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.parameters import OPS, apply, linear_shapes, parameters, values
from text_embeddings_inference.nn.layers import ACTIVATIONS, Experts, GatedFeedForward, PackedGatedFeedForward
from text_embeddings_inference.ops.spec import Value


def test_gated_feed_forward() -> None:
    shapes = linear_shapes("gate", 4, 8) | linear_shapes("up", 4, 8) | linear_shapes("down", 8, 4)
    p, w = parameters(**shapes)
    x = values(3, 4)
    gated = np.maximum(apply(x, w, "gate"), 0) * apply(x, w, "up")
    block = GatedFeedForward(p, 4, 8, ACTIVATIONS["relu"], bias=True)
    assert np.allclose(block(OPS, Value(x)).raw, apply(gated, w, "down"))
    bare = (np.maximum(x @ w["gate.weight"].T, 0) * (x @ w["up.weight"].T)) @ w["down.weight"].T
    assert np.allclose(GatedFeedForward(p, 4, 8, ACTIVATIONS["relu"])(OPS, Value(x)).raw, bare)


@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.parametrize("gated_bias", [True, False])
@pytest.mark.parametrize("down_bias", [True, False])
def test_packed_gated_feed_forward(gate_first: bool, gated_bias: bool, down_bias: bool) -> None:
    p, w = parameters(**linear_shapes("gated", 4, 10), **linear_shapes("down", 5, 4))
    biases = {"gated_bias": gated_bias, "down_bias": down_bias}
    layer = PackedGatedFeedForward(p, 4, 5, ACTIVATIONS["relu"], gate_first=gate_first, **biases)
    x = values(3, 4)
    gated = x @ w["gated.weight"].T + w["gated.bias"] * gated_bias
    gate, up = (gated[:, :5], gated[:, 5:]) if gate_first else (gated[:, 5:], gated[:, :5])
    expected = (np.maximum(gate, 0) * up) @ w["down.weight"].T + w["down.bias"] * down_bias
    assert np.allclose(layer(OPS, Value(x)).raw, expected)


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
