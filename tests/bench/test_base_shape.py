"""The checkpoint of BERT-base's shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from bench.load import base_shape
from text_embeddings_inference import load

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "fixtures" / "models" / "bert"


def test_random_checkpoint_can_be_served(tmp_path: Path) -> None:
    small = base_shape.CONFIG | {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "vocab_size": Tokenizer.from_file(str(MODEL / "tokenizer.json")).get_vocab_size(),
    }
    for name in ("a", "b"):
        base_shape.write_checkpoint(tmp_path / name, MODEL, small)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    with load(tmp_path / "a") as model:
        vectors = model.embed(["a", "b c"])
    assert vectors.shape == (2, 24)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])


def test_the_shape_is_that_of_bert_base() -> None:
    tensors = dict(base_shape.shapes(768, 3072, 12, 30522, 512))
    assert len(tensors) == 199
    assert sum(int(np.prod(shape)) for shape in tensors.values()) == 109_482_240
