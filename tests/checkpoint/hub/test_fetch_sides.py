"""What is fetched of models without a config.json, and of each side of one with several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from text_embeddings_inference.checkpoint.hub.locate import fetch_checkpoint

MODULES = Path(__file__).parents[2] / "fixtures" / "modules"


class FolderSource:
    """Copies files from one folder to another, as if it fetched them."""

    hint = ""

    def __init__(self, origin: Path, folder: Path) -> None:
        self._origin = origin
        self.folder = folder

    def fetch(self, name: str) -> bool:
        if not (self._origin / name).is_file():
            return False
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._origin / name, self.folder / name)
        return True


def fetched(origin: Path, folder: Path) -> set[str]:
    fetch_checkpoint(FolderSource(origin, folder), "owner/name", None, None)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_table_of_vectors(tmp_path: Path) -> None:
    assert fetched(MODULES / "static-retrieval", tmp_path) == {
        "modules.json",
        "config_sentence_transformers.json",
        "0_StaticEmbedding/model.safetensors",
        "0_StaticEmbedding/tokenizer.json",
    }


def test_all_sides(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(MODULES / "static-retrieval" / "0_StaticEmbedding", origin / "q")
    shutil.copytree(MODULES / "st-splade-sum", origin / "d", ignore=shutil.ignore_patterns("*modules*", "expected*"))
    types = {"q": "x.StaticEmbedding", "d": "x.Transformer", "p": "x.Pooling"}
    router = {"types": types, "structure": {"query": ["q"], "document": ["d", "p"]}, "parameters": {}}
    (origin / "p").mkdir()
    for name, content in (
        ("modules.json", [{"path": "", "type": "x.Router"}]),
        ("router_config.json", router),
        ("p/config.json", {"pooling_mode": "mean"}),
    ):
        (origin / name).write_text(json.dumps(content))
    wanted = {"modules.json", "router_config.json", "p/config.json", "q/tokenizer.json", "q/model.safetensors"}
    wanted |= {f"d/{name}" for name in ("config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json")}
    assert wanted <= fetched(origin, tmp_path / "cache")
