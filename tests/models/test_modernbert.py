from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edited import edit

from oracle.engine import NumpyEngine
from oracle.expected import Fixture
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Batch, Float32Array

BIASES: dict[str, dict[str, tuple[int, ...]]] = {
    "norm_bias": {
        f"{name}.bias": (32,)
        for name in (
            *("embeddings.norm", "layers.1.attn_norm", "layers.2.attn_norm", "final_norm", "head.norm"),
            *(f"layers.{i}.mlp_norm" for i in range(3)),
        )
    },
    "attention_bias": {
        f"layers.{i}.attn.{name}.bias": (width,) for i in range(3) for name, width in (("Wqkv", 96), ("Wo", 32))
    },
    "mlp_bias": {f"layers.{i}.mlp.{name}.bias": (width,) for i in range(3) for name, width in (("Wi", 96), ("Wo", 32))},
    "classifier_bias": {"head.dense.bias": (32,)},
}


def logits(folder: Path) -> Float32Array:
    engine = NumpyEngine(open_checkpoint(folder, facts_of), "padded")
    return engine.run(Batch.pad([Fixture("modernbert-classifier").cases[0].encoding])).pooled


@pytest.mark.parametrize("key", BIASES)
def test_biases_are_there_if_the_config_says_so(tmp_path: Path, key: str) -> None:
    """All of them: with biases of zero the logits are those of the model without."""
    folder = edit(tmp_path / "with", "modernbert-classifier", config={key: True}, add=BIASES[key])
    assert np.abs(logits(folder)[0] - Fixture("modernbert-classifier").cases[0].output).max() < 1e-4
    for name in BIASES[key]:
        less = {other: shape for other, shape in BIASES[key].items() if other != name}
        folder = edit(tmp_path / name, "modernbert-classifier", config={key: True}, add=less)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            logits(folder)


def test_layers_by_number(tmp_path: Path) -> None:
    """`layer_types` and `global_attn_every_n_layers` say the same in two ways; other layers give other logits."""
    case = max(Fixture("modernbert-classifier").cases, key=lambda case: len(case.encoding))
    types = ["full_attention", "sliding_attention", "full_attention"]

    def run(folder: Path) -> Float32Array:
        engine = NumpyEngine(open_checkpoint(folder, facts_of), "padded")
        return engine.run(Batch.pad([case.encoding])).pooled[0]

    listed = run(edit(tmp_path / "listed", "modernbert-classifier", config={"layer_types": types}))
    counted = run(edit(tmp_path / "counted", "modernbert-classifier", config={"global_attn_every_n_layers": 2}))
    assert np.array_equal(listed, counted)
    assert np.abs(listed - case.output).max() > 1e-3


def test_without_a_local_base_all_layers_have_the_global_one(tmp_path: Path) -> None:
    null = edit(tmp_path / "null", "modernbert-classifier", config={"local_rope_theta": None})
    same = edit(tmp_path / "same", "modernbert-classifier", config={"local_rope_theta": 160_000.0})
    assert np.array_equal(logits(null), logits(same))
    assert np.abs(logits(null)[0] - Fixture("modernbert-classifier").cases[0].output).max() > 1e-4
