"""Attention over more keys than are weighed at once, and more queries than are taken at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native import running
from native.kernels import kernels, levels, needs_kernels
from text_embeddings_inference.ops.spec import AttentionSpec, Ops, RelativeBias

pytestmark = needs_kernels
LENGTHS = (770, 1, 384, 385)
WIDTH, HEADS = 24, 2
TOLERANCES = {"float32": 2e-5, "bfloat16": 3e-2}

SPECS = {
    "full": AttentionSpec(),
    "causal": AttentionSpec(causal=True),
    "window": AttentionSpec(window=64),
    "wide window": AttentionSpec(window=500),
    "causal window": AttentionSpec(causal=True, window=400),
    "alibi": AttentionSpec(alibi=(0.5, 0.01)),
    "large scores": AttentionSpec(scale=30.0),
    "bounded": AttentionSpec(scale=0.5, cap=0.7),
    "bounded window": AttentionSpec(causal=True, window=400, scale=0.5, cap=1.5),
}


def random(*shape: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", [*SPECS, "bias"])
@pytest.mark.parametrize("level", levels())
def test_long_texts(level: str, name: str) -> None:
    q, k, v = (random(sum(LENGTHS), HEADS, WIDTH, seed=seed) for seed in range(3))
    table = random(41, HEADS, seed=3)

    def attention(ops: Ops, layout: Any, q: Any, k: Any, v: Any) -> Any:
        spec = SPECS.get(name) or AttentionSpec(bias=RelativeBias(ops.constant(table), 20))
        return ops.attention(q, k, v, spec, layout)

    exact = running.exact(attention, q, k, v, lengths=LENGTHS)
    for dtype, tolerance in TOLERANCES.items():
        if name == "large scores":
            if dtype == "bfloat16":
                continue  # rounded scores of such size are other scores
            tolerance = 2e-4  # scores of up to 600 have steps of 6e-5
        found = running.run(attention, q, k, v, lengths=LENGTHS, level=kernels(level), dtype=dtype, threads=2).values
        assert np.abs(found - exact).max() <= tolerance, dtype


def test_8192_tokens_take_no_square_of_memory() -> None:
    """Scores of all pairs in float32 would be 256 MB per head."""
    before = running.memory()
    q, k, v = (random(8192, 1, 64, seed=seed) for seed in range(3))
    running.run(lambda ops, layout, *qkv: ops.attention(*qkv, AttentionSpec(), layout), q, k, v, lengths=(8192,))
    assert running.memory() - before < 100 << 20
