"""Files of a checkpoint that are no files, lead out of its folder or are too large."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from model_files import write_model

from text_embeddings_inference.checkpoint import HubAccess, locate, open_checkpoint
from text_embeddings_inference.checkpoint.files import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES
from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.models.build import facts_of

COMMIT = "ab" * 20
DENSE_FILES = (
    "modules.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "model.safetensors",
)
FILES = [("bert-dense", name) for name in DENSE_FILES] + [
    ("bge-m3", "sparse_linear.pt"),
    ("bge-m3", "colbert_linear.pt"),
    ("bert-cls", "pytorch_model.bin"),
    ("xlm-roberta", "model.safetensors.index.json"),
    ("xlm-roberta", "model-00002-of-00002.safetensors"),
]


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the whole path may be too long for an address


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "socket": listen,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fixture", "name"), FILES)
def test_only_regular_files_are_read(models: Path, tmp_path: Path, fixture: str, name: str, kind: str) -> None:
    folder = shutil.copytree(models / fixture, tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, facts_of)
    assert f"`{name.rpartition('/')[2]}`" in str(caught.value) or f"`{name}`" in str(caught.value)


@pytest.mark.parametrize(("fixture", "name"), FILES)
def test_links_out_of_the_folder_are_refused(models: Path, tmp_path: Path, fixture: str, name: str) -> None:
    folder = shutil.copytree(models / fixture, tmp_path / "m")
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=rf"`{name}` in .* is a link to .*outside, which is outside"):
        open_checkpoint(folder, facts_of)


def test_links_of_folders_out_of_the_folder_are_refused(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "bert-dense", tmp_path / "m")
    (folder / "2_Dense").rename(tmp_path / "outside")
    (folder / "2_Dense").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=r"`2_Dense/config\.json` in .* is a link"):
        open_checkpoint(folder, facts_of)


def test_links_inside_of_the_folder_and_of_the_folder(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "bert-dense", tmp_path / "m" / "..data", dirs_exist_ok=True).parent
    for path in (folder / "..data").iterdir():  # as Kubernetes mounts a ConfigMap
        (folder / path.name).symlink_to(Path("..data") / path.name)
    (tmp_path / "link").symlink_to(folder)
    found, real = (open_checkpoint(path, facts_of) for path in (tmp_path / "link", models / "bert-dense"))
    assert found.weights.names() == real.weights.names()


@pytest.mark.parametrize("shared", [False, True])
def test_links_of_the_cache(tmp_path: Path, shared: bool) -> None:
    """A file is a link to a blob of its repository, which may be one to a blob that repositories share."""
    repository = tmp_path / "models--name"
    snapshot = write_model(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    blob, stored = repository / "blobs" / "1", tmp_path / "blobs" / "00" / "1"
    blob.parent.mkdir()
    stored.parent.mkdir(parents=True)
    (snapshot / "config.json").rename(stored if shared else blob)
    if shared:
        blob.symlink_to(stored)
    (snapshot / "config.json").symlink_to(Path("../../blobs/1"))
    assert open_checkpoint(locate("name", HubAccess(tmp_path, offline=True)), facts_of).model_type == "bert"
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("{}")
    with pytest.raises(CheckpointError, match="is a link to"):
        open_checkpoint(snapshot, facts_of)


@pytest.mark.parametrize("name", [name for name in DENSE_FILES if name.endswith(".json")])
def test_files_of_enormous_size_are_not_read(models: Path, tmp_path: Path, name: str) -> None:
    limit = MAX_TOKENIZER_BYTES if name == "tokenizer.json" else MAX_JSON_BYTES
    folder = shutil.copytree(models / "bert-dense", tmp_path / "m")
    (folder / name).touch()
    os.truncate(folder / name, limit + 1)  # takes no space
    with pytest.raises(CheckpointError, match=rf"`{name}` in .* is too large: more than {limit} bytes"):
        open_checkpoint(folder, facts_of)


def test_a_header_of_enormous_size_is_not_read(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "bert-dense", tmp_path / "m")
    (folder / "model.safetensors").write_bytes((MAX_JSON_BYTES + 1).to_bytes(8, "little"))
    os.truncate(folder / "model.safetensors", MAX_JSON_BYTES + 9)
    with pytest.raises(CheckpointError, match=f"a header of {MAX_JSON_BYTES + 1} bytes"):
        open_checkpoint(folder, facts_of)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_can_not_be_parsed(tmp_path: Path, content: str) -> None:
    (write_model(tmp_path) / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"Failed to parse `config\.json`"):
        open_checkpoint(tmp_path, facts_of)
