"""Downloads from a stand-in of the Hub on loopback."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from model_files import modules, write_dense, write_json, write_model
from standin_hub import COMMIT, StandinHub

from text_embeddings_inference.checkpoint import HubAccess, locate, open_checkpoint
from text_embeddings_inference.errors import HubError, SettingsError, UnsupportedError
from text_embeddings_inference.models.build import facts_of

ID = "owner/model"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_download(hub: StandinHub, access: HubAccess, models: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = hub.add_folder(ID, models / "bert-dense").files
    files |= {"model.onnx": b"", "onnx/model.onnx": b"", "pytorch_model.bin": b"", "README.md": b"", "2_Dense/x": b""}
    caplog.set_level(logging.INFO)
    folder = locate(ID, access)
    assert hub.downloads() == [
        "modules.json",
        "config.json",
        "tokenizer.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "model.safetensors",
    ]
    assert content(folder) == {name: files[name] for name in hub.downloads()}
    assert folder == access.cache_dir / "models--owner--model" / "snapshots" / COMMIT
    checkpoint = open_checkpoint(folder, facts_of)
    assert (checkpoint.dense[0].outputs, checkpoint.dense[0].inputs) == (24, 32)
    assert "Downloading `model.safetensors` (" in caplog.text
    for name in hub.downloads():
        assert f"Downloading `{name}`" in caplog.text


@pytest.mark.parametrize("name", ["bge-m3", "colbert"])
def test_what_tokens_get(hub: StandinHub, access: HubAccess, models: Path, name: str) -> None:
    hub.add_folder(ID, models / name)
    assert open_checkpoint(locate(ID, access), facts_of).columns == open_checkpoint(models / name, facts_of).columns


def test_shards(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "xlm-roberta").files["pytorch_model.bin"] = b""
    folder = locate(ID, access)
    assert len(open_checkpoint(folder, facts_of).weights) == 55
    assert [name for name in hub.downloads() if name.startswith(("model.", "model-", "pytorch"))] == [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_pickled_weights_are_the_last_choice(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert-cls")
    assert len(open_checkpoint(locate(ID, access), facts_of).weights) == 47


def test_a_transformer_in_a_folder_of_its_own(hub: StandinHub, access: HubAccess, tmp_path: Path) -> None:
    write_model(tmp_path / "m" / "0_Transformer", sentence_bert_config={"max_seq_length": 32})
    write_json(tmp_path / "m" / "modules.json", modules(("Transformer", "0_Transformer"), ("Pooling", "pool")))
    write_json(tmp_path / "m" / "pool" / "config.json", {"pooling_mode": "mean"})
    hub.add_folder(ID, tmp_path / "m")
    assert open_checkpoint(locate(ID, access), facts_of).max_input_length == 32


def test_the_second_start_needs_no_network(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert-classifier")  # without any sentence-transformers file: their absence is known
    folder = locate(ID, access)
    hub.stop()
    asked = len(hub.requests)
    assert locate(ID, access) == folder
    assert len(hub.requests) == asked
    assert locate(ID, dataclasses.replace(access, offline=True)) == folder
    assert locate(ID, dataclasses.replace(access, revision=COMMIT)) == folder


def test_only_missing_files_are_downloaded(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert")
    folder = locate(ID, access)
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "model.safetensors").resolve().unlink()
    (folder / "model.safetensors").unlink()
    hub.requests.clear()
    assert locate(ID, access) == folder
    assert hub.downloads() == ["model.safetensors"]  # the other one is still among the blobs
    assert (folder / "1_Pooling" / "config.json").is_file()


def test_the_cached_commit_is_completed_not_mixed(hub: StandinHub, access: HubAccess, models: Path) -> None:
    repository = hub.add_folder(ID, models / "bert")
    folder = locate(ID, access)
    (folder / "model.safetensors").unlink()
    newer = dataclasses.replace(repository, commit="f" * 40)
    hub.repositories[ID] = dataclasses.replace(newer, revisions=("main", COMMIT))
    hub.repositories[ID].commit = COMMIT  # both commits are known; the cached one is asked for
    assert locate(ID, access) == folder
    hub.repositories[ID] = newer  # the old one is gone
    (folder / "model.safetensors").unlink()
    fresh = locate(ID, access)
    assert fresh.name == "f" * 40
    assert len(open_checkpoint(fresh, facts_of).weights) == 39
    hub.stop()
    assert locate(ID, access) == fresh


def test_an_incomplete_cache_is_used_when_the_hub_is_away(
    hub: StandinHub, access: HubAccess, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add_folder(ID, models / "bert-classifier")
    folder = locate(ID, access)
    (folder.parent.parent / ".no_exist" / COMMIT / "modules.json").unlink()
    hub.stop()
    assert locate(ID, access) == folder
    assert "Using the files in the cache" in caplog.text
    (folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match="could not get the list of files of `owner/model`"):
        locate(ID, access)


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", "feature/x"])
def test_revisions(hub: StandinHub, access: HubAccess, models: Path, revision: str) -> None:
    hub.add_folder(ID, models / "bert").revisions = (revision,)
    access = dataclasses.replace(access, revision=revision)
    folder = locate(ID, access)
    assert (folder.parent.parent / "refs" / revision).read_text() == COMMIT
    hub.stop()
    assert locate(ID, access) == folder


def test_a_broken_download_is_resumed(
    hub: StandinHub, access: HubAccess, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what it resumes in
    repository = hub.add_folder(ID, models / "bert")
    repository.broken.add("model.safetensors")
    folder = locate(ID, access)
    data = repository.files["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == data
    ranges = [
        r.headers.get("range") for r in hub.requests if r.method == "GET" and r.path.endswith("model.safetensors")
    ]
    assert ranges == [None, f"bytes={len(data) // 2 // 1000 * 1000}-"]


def test_gated_models(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert").gated = True
    for token in ("refused", None):
        with pytest.raises(HubError) as caught:
            locate(ID, dataclasses.replace(access, token=token))
        assert "`owner/model` is gated" in str(caught.value)
        assert f"accept the terms at {hub.endpoint}/owner/model, then pass a token of yours" in str(caught.value)
        assert "`--hf-token`" in str(caught.value)
    assert open_checkpoint(locate(ID, dataclasses.replace(access, token="accepted")), facts_of).model_type == "bert"


def test_the_user_agent(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert")
    locate(ID, dataclasses.replace(access, user_agent_origin="test-suite"))
    for request in hub.requests:
        assert "text-embeddings-inference" in request.headers["user-agent"]
        assert "origin/test-suite" in request.headers["user-agent"]


@pytest.mark.parametrize(
    ("model_id", "revision", "problem", "way_out"),
    [
        (
            "owner/nothing",
            None,
            "`owner/nothing` is no folder here and no model that this token may read on ",
            "check the spelling",
        ),
        (ID, "v9", "`owner/model` has no revision `v9`", "check `--revision`"),
        (ID, "f" * 40, f"`owner/model` has no revision `{'f' * 40}`", "check `--revision`"),
    ],
)
def test_what_is_not_there(
    hub: StandinHub, access: HubAccess, models: Path, model_id: str, revision: str | None, problem: str, way_out: str
) -> None:
    hub.add_folder(ID, models / "bert")
    with pytest.raises(HubError) as caught:
        locate(model_id, dataclasses.replace(access, revision=revision))
    assert str(caught.value).startswith("Could not download model artifacts: " + problem)
    assert way_out in str(caught.value)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, "no model that this token may read"),
        (404, "no model that this token may read"),
        (403, r"refuses the list of files of `owner/model` \(status 403\)"),
        (429, "answered 429 to the request for the list of files"),
        (503, "answered 503 to the request for the list of files"),
    ],
)
def test_refusals(hub: StandinHub, access: HubAccess, models: Path, status: int, problem: str) -> None:
    hub.add_folder(ID, models / "bert").status = status
    with pytest.raises(HubError, match=problem):
        locate(ID, access)


def test_no_network(hub: StandinHub, access: HubAccess) -> None:
    hub.stop()
    with pytest.raises(HubError) as caught:
        locate(ID, access)
    assert f"could not get the list of files of `owner/model` from {hub.endpoint}" in str(caught.value)
    assert "hint: check the network and `HF_ENDPOINT`, or give a local folder" in str(caught.value)


def test_the_hubs_own_offline_switch(hub: StandinHub, access: HubAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="`HF_HUB_OFFLINE` is set"):
        locate(ID, access)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files_are_named(hub: StandinHub, access: HubAccess, models: Path, name: str) -> None:
    del hub.add_folder(ID, models / "bert").files[name]
    with pytest.raises(HubError, match=f"`{name}`.*`owner/model`|`owner/model` has none of `{name}`"):
        locate(ID, access)


def test_a_missing_shard_is_named(hub: StandinHub, access: HubAccess, models: Path) -> None:
    del hub.add_folder(ID, models / "xlm-roberta").files["model-00002-of-00002.safetensors"]
    with pytest.raises(HubError, match=r"`model-00002-of-00002\.safetensors` is not in `owner/model`"):
        locate(ID, access)


def test_unsupported_modules_stop_before_the_weights(hub: StandinHub, access: HubAccess, tmp_path: Path) -> None:
    write_model(tmp_path / "m", modules=modules(("Transformer", ""), ("LSTM", "1_LSTM")))
    hub.add_folder(ID, tmp_path / "m")
    with pytest.raises(UnsupportedError, match="LSTM"):
        locate(ID, access)
    assert hub.downloads() == ["modules.json"]


def test_another_dense_folder(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert-dense")
    folder = locate(ID, access, dense_path="2_Dense_16")
    assert open_checkpoint(folder, facts_of, dense_path="2_Dense_16").dense[0].outputs == 16
    assert "2_Dense/config.json" not in hub.downloads()
    for path in ("../x", "/x"):
        with pytest.raises(SettingsError, match="--dense-path"):
            locate(ID, access, dense_path=path)


def test_a_cache_that_can_not_be_written(hub: StandinHub, access: HubAccess, models: Path, tmp_path: Path) -> None:
    hub.add_folder(ID, models / "bert")
    (tmp_path / "file").touch()
    with pytest.raises(HubError, match=r"`--huggingface-hub-cache`\) is writable"):
        locate(ID, dataclasses.replace(access, cache_dir=tmp_path / "file"))


def test_tokens_are_not_shown() -> None:
    assert "secret" not in repr(HubAccess(Path("cache"), token="secret"))


def test_a_cache_without_knowledge_of_absent_files(hub: StandinHub, access: HubAccess, models: Path) -> None:
    hub.add_folder(ID, models / "bert-classifier")
    folder = locate(ID, access)
    shutil.rmtree(folder.parent.parent / ".no_exist")
    (folder.parent.parent / ".no_exist").touch()  # and no way to write it down
    hub.requests.clear()
    assert locate(ID, access) == folder
    assert [request.path for request in hub.requests] == [f"/api/models/owner/model/revision/{COMMIT}"]


def test_dense_in_pickled_form(hub: StandinHub, access: HubAccess, models: Path, tmp_path: Path) -> None:
    entries = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")
    write_model(tmp_path / "m", modules=modules(*entries), **{"1_Pooling__config": {"pooling_mode": "mean"}})
    write_dense(tmp_path / "m" / "2_Dense", np.ones((2, 2), np.float32), None)
    files = hub.add_folder(ID, tmp_path / "m").files
    files["2_Dense/pytorch_model.bin"] = files.pop("2_Dense/model.safetensors")
    locate(ID, access)
    assert "2_Dense/pytorch_model.bin" in hub.downloads()


def test_a_commit_without_a_reference_is_used_where_the_hub_is_away(
    hub: StandinHub, access: HubAccess, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add_folder(ID, models / "bert")
    folder = locate(ID, dataclasses.replace(access, revision=COMMIT))
    assert not (folder.parents[1] / "refs").exists()
    asked = len(hub.requests)
    assert locate(ID, access) == folder
    assert len(hub.requests) == asked + 1  # what `main` is
    shutil.rmtree(folder.parents[1] / "refs")
    hub.stop()
    assert locate(ID, access) == folder
    assert "Using the files in the cache" in caplog.text


def test_the_token_in_a_home_of_ones_own(hub: StandinHub, access: HubAccess, models: Path, tmp_path: Path) -> None:
    hub.add_folder(ID, models / "bert").gated = True
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("accepted\n")
    locate(ID, dataclasses.replace(access, home=tmp_path / "home"))
    assert hub.requests[-1].headers["authorization"] == "Bearer accepted"
