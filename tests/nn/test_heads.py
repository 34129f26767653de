"""What stands behind a model's hidden states, against its formulas."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.parameters import OPS, RandomTensors, apply, linear_shapes, norm_shapes, normed, packed, parameters, values
from text_embeddings_inference.nn.heads import ClassificationHead, MaskedLMHead
from text_embeddings_inference.nn.layers import ACTIVATIONS, Embedding
from text_embeddings_inference.nn.parameters import bind
from text_embeddings_inference.ops.spec import Value


def test_classification_head_reads_the_first_token() -> None:
    p, w = parameters(**linear_shapes("dense", 4, 4), **linear_shapes("out", 4, 3))
    x = values(5, 4)
    first = x[[0, 2]]
    head = ClassificationHead(p, 4, 3, ACTIVATIONS["tanh"])
    assert np.allclose(head(OPS, Value(x), packed(2, 3)).raw, apply(np.tanh(apply(first, w, "dense")), w, "out"))
    bare = ClassificationHead(p, 4, 3, ACTIVATIONS["tanh"], dense=False)
    assert np.allclose(bare(OPS, Value(x), packed(2, 3)).raw, apply(first, w, "out"))


@pytest.mark.parametrize("bias", ["decoder__bias", "own__bias"])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "tied"])
def test_masked_lm_head(stored: bool, bias: str) -> None:
    decoder = {"decoder__weight": (7, 3)} if stored else {}
    shapes = linear_shapes("transform", 4, 3) | norm_shapes("norm", 3) | decoder | {bias: (7,), "word__weight": (7, 3)}
    tensors = RandomTensors({name.replace("__", "."): shape for name, shape in shapes.items()})
    table: dict[str, str | None] = {"transform": "transform", "norm": "norm", "decoder": "decoder", "word": "word"}
    p, _ = bind(tensors, table | {"own": ""}, {}, (), OPS)
    w = {name: tensors.array(name).astype(np.float64) for name in tensors.names()}
    x = values(2, 4)
    head = MaskedLMHead(p, 4, Embedding(p / "word", 7, 3), (7, 3), ACTIVATIONS["relu"], 1e-5)
    inner = normed(np.maximum(apply(x, w, "transform"), 0), w, "norm", 1e-5)
    table_used = w["decoder.weight" if stored else "word.weight"]
    assert np.allclose(head(OPS, Value(x)).raw, inner @ table_used.T + w[bias.replace("__", ".")])
