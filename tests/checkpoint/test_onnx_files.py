from __future__ import annotations

from pathlib import Path

import pytest
from model_files import write_model

from text_embeddings_inference.checkpoint import Facts, OnnxGraph, open_checkpoint
from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.models.build import facts_of


def graph_only(folder: Path, *names: str, **config: object) -> Path:
    write_model(folder, config=config)
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_graph_stands_in_for_weights(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(graph_only(tmp_path, "onnx/model.onnx", pad_token_id=7), facts_of)
    assert checkpoint.onnx == OnnxGraph(tmp_path / "onnx" / "model.onnx", first_position=0, pad_id=7)
    assert len(checkpoint.weights) == 0
    (tmp_path / "model.onnx").touch()
    assert open_checkpoint(tmp_path, facts_of).onnx == OnnxGraph(tmp_path / "model.onnx", first_position=0, pad_id=7)


def test_other_weights_come_first(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "model.onnx").touch()
    assert open_checkpoint(tmp_path, facts_of).onnx is None
    asked_for = open_checkpoint(tmp_path, facts_of, onnx_file="model.onnx")
    assert asked_for.onnx is not None
    assert len(asked_for.weights) == 0
    with pytest.raises(CheckpointError, match=r"`--onnx-file x\.onnx`: no such file"):
        open_checkpoint(tmp_path, facts_of, onnx_file="x.onnx")


@pytest.mark.parametrize(
    ("config", "first_position", "pad_id"),
    [
        ({"pad_token_id": 3}, 4, 3),
        ({"pad_token_id": 3}, None, 3),
        ({"eos_token_id": 5}, 0, 5),
        ({"pad_token_id": None, "eos_token_id": [5, 6]}, 0, 0),
        ({"pad_token_id": -1}, 0, 0),
    ],
)
def test_what_the_graph_does_not_tell(
    tmp_path: Path, config: dict[str, object], first_position: int | None, pad_id: int
) -> None:
    folder = graph_only(tmp_path, "model.onnx", **config)
    found = open_checkpoint(folder, lambda model_type, values: Facts(first_position)).onnx
    assert found is not None
    assert (found.first_position, found.pad_id) == (first_position or 0, pad_id)
