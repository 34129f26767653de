"""PEFT adapters in the folder of their base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from extras import needs_torch
from native.kernels import needs_kernels
from text_embeddings_inference import load
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.models.build import facts_of

BESIDE = Path(__file__).parents[1] / "fixtures" / "variants" / "lora-beside-base"
QUERY = "encoder.layer.0.attention.self.query"
ENGINES = ["openvino", pytest.param("native", marks=needs_kernels), pytest.param("torch", marks=needs_torch)]


def edited(folder: Path, **config: object) -> Path:
    """The fixture with these keys in its adapter_config.json."""
    shutil.copytree(BESIDE, folder, dirs_exist_ok=True)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_vectors_alone_and_in_a_batch(engine: str) -> None:
    expected = json.loads((BESIDE / "expected.json").read_text())["texts"]
    wanted = np.array([text["embedding"] for text in expected])
    with load(BESIDE, engine=engine, dtype="float32") as model:
        together = model.embed([text["text"] for text in expected])
        alone = np.concatenate([model.embed([text["text"]]) for text in expected])
    assert (together * wanted).sum(1).min() > 0.99999
    assert (alone * wanted).sum(1).min() > 0.99999


@pytest.mark.parametrize(
    ("config", "factor"),
    [({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {"layer.0.attention.self.query": 2}}, 0.5)],
)
def test_scale(tmp_path: Path, config: dict[str, object], factor: float) -> None:
    folder = edited(tmp_path, **config)
    factors, base = load_file(folder / "adapter_model.safetensors"), load_file(folder / "model.safetensors")
    a, b = (factors[f"base_model.model.{QUERY}.lora_{name}.weight"] for name in "AB")
    merged = open_checkpoint(folder, facts_of).weights.array(f"{QUERY}.weight")
    assert np.allclose(merged, base[f"{QUERY}.weight"] + factor * b @ a, atol=1e-6)


@pytest.mark.parametrize(("key", "value"), [("use_dora", True), ("peft_type", "IA3"), ("bias", "all")])
def test_other_kinds_are_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(UnsupportedError, match=key):
        open_checkpoint(edited(tmp_path, **{key: value}), facts_of)


def test_adapter_of_another_model(tmp_path: Path) -> None:
    folder = edited(tmp_path)
    zeros = np.zeros((4, 4), np.float32)
    names = [f"base_model.model.encoder.layer.9.attention.self.query.lora_{name}.weight" for name in "AB"]
    save_file(dict.fromkeys(names, zeros), folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"layer\.9"):
        open_checkpoint(folder, facts_of)


def test_adapter_alone(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(BESIDE / name, tmp_path)
    with pytest.raises(UnsupportedError, match='adapter of "example/lora-base"'):
        open_checkpoint(tmp_path, facts_of)
