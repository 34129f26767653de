"""What is fetched of a checkpoint on a stand-in of the Hub to explain it."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import write_model
from standin_hub import COMMIT, StandinHub

from text_embeddings_inference.checkpoint import (
    File,
    HubAccess,
    Request,
    examine_checkpoint,
    locate,
    open_checkpoint,
    preview,
)
from text_embeddings_inference.errors import HubError, SettingsError
from text_embeddings_inference.models.build import facts_of

ID = "owner/model"


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_embeddings_inference.checkpoint.hub.preview.SMALL", 0)


@pytest.mark.usefixtures("nothing_is_small")
def test_a_preview_fetches_no_weights(hub: StandinHub, access: HubAccess, models: Path) -> None:
    files = hub.add_folder(ID, models / "bert-dense").files
    with preview(ID, access) as found:
        assert "model.safetensors" in hub.downloads(), "its first bytes"
        snapshot = access.cache_dir / "models--owner--model" / "snapshots" / COMMIT
        assert not list(snapshot.rglob("*.safetensors"))
        assert {file.name: file.size for file in found.files} == {
            name: len(data) for name, data in files.items() if name in {file.name for file in found.files}
        }
        assert (found.is_lasting, found.unread) == (False, ())
        checkpoint = examine_checkpoint(Request(found.folder, facts_of, linked=found.linked)).checkpoint()
        real = open_checkpoint(models / "bert-dense", facts_of)
        assert checkpoint.weights.names() == real.weights.names()
        assert [checkpoint.weights.shape(name) for name in real.weights] == [
            real.weights.shape(name) for name in real.weights
        ]
        assert not checkpoint.weights.array("embeddings.word_embeddings.weight").any()
        assert (checkpoint.dense[0].outputs, checkpoint.dense[0].inputs) == (24, 32)
    assert not found.folder.exists()
    folder = locate(ID, access)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"], "the cache was not spoilt"
    with preview(ID, access) as found:
        assert (found.folder, found.is_lasting) == (folder, True)


@pytest.mark.usefixtures("nothing_is_small")
def test_a_preview_of_pickled_weights_knows_their_size(hub: StandinHub, access: HubAccess, models: Path) -> None:
    files = hub.add_folder(ID, models / "bert-cls").files
    with preview(ID, access) as found:
        [unread] = found.unread
        assert unread == File("pytorch_model.bin", len(files["pytorch_model.bin"]))
        assert "pytorch_model.bin" not in hub.downloads()


def test_a_preview_goes_on_where_files_are_missing(hub: StandinHub, access: HubAccess, models: Path) -> None:
    files = hub.add_folder(ID, models / "bert").files
    del files["tokenizer.json"], files["model.safetensors"]
    with preview(ID, access) as found:
        assert "1_Pooling/config.json" in [file.name for file in found.files]


def test_a_preview_fetches_small_weights(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert-cls")
    with preview(ID, access) as found:
        assert found.unread == ()
        assert len(examine_checkpoint(Request(found.folder, facts_of, linked=found.linked)).checkpoint().weights) == 47


def test_a_repository_with_nothing_but_a_graph(hub: StandinHub, access: HubAccess, tmp_path: Path) -> None:
    files = hub.add_folder(ID, write_model(tmp_path / "m")).files
    del files["model.safetensors"]
    files |= {"onnx/model.onnx": b"graph", "onnx/model.onnx_data": b"data", "onnx/model_int8.onnx": b"8 bits"}
    folder = locate(ID, access)
    assert hub.downloads()[-2:] == ["onnx/model.onnx", "onnx/model.onnx_data"]
    graph = open_checkpoint(folder, facts_of).onnx
    assert graph is not None
    assert graph.file == folder / "onnx" / "model.onnx"
    hub.stop()
    assert locate(ID, access) == folder


def test_another_graph_than_the_usual(hub: StandinHub, access: HubAccess, tmp_path: Path) -> None:
    files = hub.add_folder(ID, write_model(tmp_path / "m")).files
    files["onnx/model_int8.onnx"] = b"8 bits"
    folder = locate(ID, access, onnx_file="onnx/model_int8.onnx")
    assert "model.safetensors" not in hub.downloads()
    graph = open_checkpoint(folder, facts_of, onnx_file="onnx/model_int8.onnx").onnx
    assert graph is not None
    assert graph.file.read_bytes() == b"8 bits"
    with pytest.raises(HubError, match=r"has none of `onnx/none\.onnx`"):
        locate(ID, access, onnx_file="onnx/none.onnx")
    with pytest.raises(SettingsError, match=r"`--onnx-file \.\./x` is not inside of the repository"):
        locate(ID, access, onnx_file="../x")


@pytest.mark.usefixtures("nothing_is_small")
def test_a_damaged_header_is_told(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert").files["model.safetensors"] = b"\x02\0\0\0\0\0\0\0xx"
    with pytest.raises(HubError, match=r"the header of `model\.safetensors` of `owner/model`"), preview(ID, access):
        pass
