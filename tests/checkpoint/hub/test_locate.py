"""Folders and the cache: nothing here needs the Hub, and huggingface_hub is never loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_files import write_model

from text_embeddings_inference.checkpoint import HubAccess, expand, locate
from text_embeddings_inference.errors import HubError

COMMIT = "ab" * 20


def cache(folder: Path, *, revision: str = "main") -> Path:
    """A repository `name` in the cache, as other tools leave it; returns its snapshot."""
    snapshot = write_model(folder / "models--name" / "snapshots" / COMMIT)
    reference = folder / "models--name" / "refs" / revision
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    return snapshot


def test_a_folder(tmp_path: Path) -> None:
    assert locate(str(tmp_path), HubAccess(tmp_path / "cache")) == tmp_path
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("model_id", ["", "a/b/c", "../x", "/no/such/folder", "./x", "a..b", "a b", "owner/", "x\n"])
def test_neither_folder_nor_id(tmp_path: Path, model_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="neither an existing folder nor the id of a Hub repository"):
        locate(model_id, HubAccess(tmp_path))


def test_offline(tmp_path: Path) -> None:
    access = HubAccess(tmp_path, offline=True)
    with pytest.raises(HubError, match=r"`name` is not in the cache \("):
        locate("name", access)
    snapshot = cache(tmp_path)
    assert locate("name", access) == snapshot
    with pytest.raises(HubError, match="not in the cache"):
        locate("name", HubAccess(tmp_path, revision="v2", offline=True))
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(HubError, match=r"`tokenizer\.json` not found in `name`\nhint: start once with network"):
        locate("name", access)


def test_a_commit_without_a_reference(tmp_path: Path) -> None:
    """As of a download by commit: the cache does not know then what `main` is."""
    snapshot = cache(tmp_path)
    shutil.rmtree(tmp_path / "models--name" / "refs")
    for revision in (COMMIT, None):
        assert locate("name", HubAccess(tmp_path, revision=revision, offline=True)) == snapshot
    with pytest.raises(HubError, match="not in the cache"):
        locate("name", HubAccess(tmp_path, revision="v2", offline=True))
    (snapshot.parent / ("cd" * 20)).mkdir()  # which of them?
    with pytest.raises(HubError, match="not in the cache"):
        locate("name", HubAccess(tmp_path, offline=True))


def test_folders_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    monkeypatch.setenv("DATA", "/data")
    assert (expand("~/hub"), expand(Path("$DATA/hub"))) == (Path("/home/user/hub"), Path("/data/hub"))


@pytest.mark.parametrize("revision", ["../main", "/main", "a/../b"])
def test_revisions_stay_in_the_cache(tmp_path: Path, revision: str) -> None:
    with pytest.raises(HubError, match="is no revision"):
        locate("name", HubAccess(tmp_path, revision=revision))


def test_a_reference_to_nothing(tmp_path: Path) -> None:
    shutil.rmtree(cache(tmp_path))
    with pytest.raises(HubError, match="not in the cache"):
        locate("name", HubAccess(tmp_path, offline=True))


def test_local_models_load_no_hub_library(models: Path, tmp_path: Path) -> None:
    cache(tmp_path)
    program = f"""
import sys
from pathlib import Path
from text_embeddings_inference.checkpoint import HubAccess, expand, locate, open_checkpoint
from text_embeddings_inference.models.build import facts_of
open_checkpoint(locate({str(models / "bert-dense")!r}, HubAccess(Path("none"))), facts_of)
open_checkpoint(locate("name", HubAccess(Path({str(tmp_path)!r}), offline=True)), facts_of)
print([name for name in ("torch", "transformers", "huggingface_hub", "httpx2", "openvino") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output == "[]\n"
