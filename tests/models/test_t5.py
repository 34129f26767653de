from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from edited import edit

from oracle.engine import NumpyEngine
from oracle.expected import Fixture
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Batch, Float32Array

FEED_FORWARD = "encoder.block.{i}.layer.1.DenseReluDense"


def pooled(folder: Path) -> Float32Array:
    engine = NumpyEngine(open_checkpoint(folder, facts_of), "padded")
    return engine.run(Batch.pad([Fixture("t5-encoder").cases[0].encoding])).pooled[0]


def test_gated_feed_forward(tmp_path: Path) -> None:
    """Behind a closed gate nothing is added, as behind a first matrix of zeros; `wi_0` is the gate's."""
    names = [FEED_FORWARD.format(i=i) for i in range(2)]
    closed = {f"{name}.wi_0.weight": (64, 32) for name in names}
    rename = {f"{name}.wi.weight": f"{name}.wi_1.weight" for name in names}
    gated: dict[str, Any] = {"config": {"feed_forward_proj": "gated-gelu"}, "rename": rename, "add": closed}
    nothing = {f"{name}.wi.weight": (64, 32) for name in names}
    without = pooled(edit(tmp_path / "without", "t5-encoder", add=nothing))
    assert np.abs(pooled(edit(tmp_path / "gated", "t5-encoder", **gated)) - without).max() < 1e-6
    assert np.abs(Fixture("t5-encoder").cases[0].output - without).max() > 1e-2


def test_word_embedding_under_its_second_name(tmp_path: Path) -> None:
    """Files that T5EncoderModel's pickles were converted to have it twice."""
    folder = edit(tmp_path, "t5-encoder", add={"encoder.embed_tokens.weight": (605, 32)})
    assert np.abs(pooled(folder) - Fixture("t5-encoder").cases[0].output).max() < 1e-4
