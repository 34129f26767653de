from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import edit

from oracle.engine import NumpyEngine
from oracle.expected import Fixture
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.models import choose
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Batch, Float32Array


def pooled(folder: Path, name: str) -> Float32Array:
    engine = NumpyEngine(open_checkpoint(folder, facts_of), "padded")
    return engine.run(Batch.pad([Fixture(name).cases[0].encoding])).pooled[0]


def test_told_apart_by_a_key() -> None:
    remote, native = choose("nomic_bert", {"n_embd": 768}), choose("nomic_bert", {"hidden_size": 768})
    assert remote is not None
    assert native is not None
    assert (remote.module, native.module) == ("nomic_bert_remote", "nomic_bert")
    assert "`n_embd`" in remote.reason


def test_both_spellings_are_one_model(tmp_path: Path) -> None:
    """The same tensors, described the other way."""
    config: dict[str, Any] = {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_inner": 64,
        "n_positions": 128,
        "layer_norm_epsilon": 1e-12,
    }
    config |= {"rotary_emb_fraction": 1.0, "rotary_emb_base": 1000, "activation_function": "swiglu"}
    config |= {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False}
    folder = edit(tmp_path, "nomic-bert-native", config=config)
    assert np.abs(pooled(folder, "nomic-bert-native") - Fixture("nomic-bert-native").cases[0].output).max() < 1e-4


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"])
def test_every_gelu_is_the_exact_one(tmp_path: Path, name: str) -> None:
    """NomicBertBlock takes `F.gelu` for all of them."""
    folder = edit(tmp_path, "nomic-bert-moe", config={"activation_function": name})
    assert np.abs(pooled(folder, "nomic-bert-moe") - Fixture("nomic-bert-moe").cases[0].output).max() < 1e-5


def test_scaling_that_never_applies(tmp_path: Path) -> None:
    """Within the positions that were trained nothing is scaled."""
    folder = edit(tmp_path, "nomic-bert", config={"rotary_scaling_factor": 2.0, "n_positions": 96})
    assert np.abs(pooled(folder, "nomic-bert") - Fixture("nomic-bert").cases[0].output).max() < 1e-4
