"""Heads for SPLADE of architectures that have no SPLADE fixture: random heads on fixtures, beside their formulas."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import edit
from numpy.typing import NDArray

from oracle.expected import Fixture
from oracle.numpy_ops import NumpyOps, Sequences
from oracle.parameters import RandomTensors
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.models.build import Results, build, facts_of
from text_embeddings_inference.ops.spec import Inputs, Layout, Value
from text_embeddings_inference.types import Pooling

Shapes = dict[str, tuple[int, ...]]
OPS = NumpyOps()


class WithHead:
    """A fixture's tensors and those of a head."""

    def __init__(self, weights: Any, head: RandomTensors) -> None:
        self._sources = {name: source for source in (weights, head) for name in source.names()}

    def names(self) -> Iterable[str]:
        return self._sources

    def shape(self, name: str) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._sources[name].shape(name)
        return shape

    def array(self, name: str) -> NDArray[Any]:
        return np.asarray(self._sources[name].array(name), np.float32)


def run(folder: Path, name: str, head: RandomTensors, pooling: Pooling) -> Results:
    checkpoint = open_checkpoint(folder, facts_of, pooling=pooling)
    network = build(checkpoint, OPS, WithHead(checkpoint.weights, head))
    ids = Fixture(name).cases[0].encoding.input_ids
    layout = Layout(Sequences((len(ids),), None))
    return network.run(OPS, Inputs(Value(ids), Value(np.zeros_like(ids)), layout))


def normed(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | float, eps: float) -> NDArray[Any]:
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "tied"])
@pytest.mark.parametrize(
    ("name", "shapes", "words", "decoder"),
    [
        pytest.param(
            "gte",
            {
                "lm_head.dense.weight": (32, 32),
                "lm_head.dense.bias": (32,),
                "lm_head.norm.weight": (32,),
                "lm_head.norm.bias": (32,),
                "lm_head.decoder.bias": (605,),
            },
            "embeddings.word_embeddings.weight",
            "lm_head.decoder.weight",
            id="gte",
        ),
        pytest.param(
            "modernbert",
            {"head.dense.weight": (32, 32), "head.norm.weight": (32,), "decoder.bias": (665,)},
            "embeddings.tok_embeddings.weight",
            "decoder.weight",
            id="modernbert",
        ),
    ],
)
def test_splade(tmp_path: Path, name: str, shapes: Shapes, words: str, decoder: str, stored: bool) -> None:
    """max over the tokens of ln(1 + relu(decoder norm(gelu(dense x))))."""
    folder = edit(tmp_path, name, config={"architectures": ["SomethingForMaskedLM"]})
    table = Fixture(name).open().weights.array(words)
    head = RandomTensors(shapes | ({decoder: table.shape} if stored else {}))
    w = {tensor.rpartition("lm_head.")[2].removeprefix("head."): head.array(tensor) for tensor in head.names()}
    tokens = run(folder, name, head, Pooling.MEAN).tokens
    assert tokens is not None
    dense = Value(tokens.raw @ w["dense.weight"].T + w.get("dense.bias", 0.0))
    eps = 1e-5 if name == "modernbert" else 1e-12
    hidden = normed(OPS.gelu(dense).raw, w["norm.weight"], w.get("norm.bias", 0.0), eps)
    logits = hidden @ w.get("decoder.weight", table).T + w["decoder.bias"]
    expected = np.log1p(np.maximum(logits, 0)).max(0)
    splade = run(folder, name, head, Pooling.SPLADE).pooled.raw[0]
    assert np.count_nonzero(splade) > 10
    assert np.abs(splade - expected).max() < 1e-6
