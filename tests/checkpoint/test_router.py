"""A Router's file: which route a text takes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import write_json

from text_embeddings_inference.checkpoint.modules import Static, read_module_paths, router_files
from text_embeddings_inference.checkpoint.router import Entry, read_routes
from text_embeddings_inference.errors import CheckpointError, UnsupportedError

TYPES = {"q": "x.SparseStaticEmbedding", "d": "x.Transformer"}
STRUCTURE = {"query": ["q"], "document": ["d"]}


def write(folder: Path, *, name: str = "router_config.json", **values: Any) -> None:
    parameters = values.pop("parameters", {"default_route": "document"})
    write_json(folder / name, {"types": TYPES, "structure": STRUCTURE, "parameters": parameters} | values)


def test_routes(tmp_path: Path) -> None:
    write(tmp_path)
    routes = read_routes(tmp_path, "")
    assert routes.modules == {"query": [Entry("q", TYPES["q"])], "document": [Entry("d", TYPES["d"])]}
    assert routes.names == {"query": "query", "document": "document"}
    assert routes.default == "document"


def test_the_first_route_is_the_default_where_none_is_named(tmp_path: Path) -> None:
    write(tmp_path, parameters={"default_route": None})
    assert read_routes(tmp_path, "").default == "query"
    write(tmp_path, parameters={"default_route": None, "allow_empty_key": False})
    with pytest.raises(UnsupportedError, match="has no `default_route`"):
        read_routes(tmp_path, "")


def test_an_old_file_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "0_Asym", name="config.json")
    assert read_routes(tmp_path, "0_Asym").modules["query"] == [Entry("0_Asym/q", TYPES["q"])]


def test_mappings_come_before_names(tmp_path: Path) -> None:
    mappings = {
        "('query', 'text')": "fast",
        "('document', None)": "good",
        "(None, ('image', 'text'))": "seen",
        "(None, 'image')": "seen",
    }
    structure = {"fast": ["q"], "good": ["d"], "seen": ["d"]}
    write(tmp_path, structure=structure, parameters={"default_route": "good", "route_mappings": mappings})
    routes = read_routes(tmp_path, "")
    assert routes.names["query"] == "fast"
    assert routes.names["document"] == "good"
    assert routes.names["fast"] == "fast"
    assert routes.default == "good"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"structure": []}, r"`structure` should be an object, is \[\]"),
        ({"types": {}}, "`types` should be an object"),
        ({"structure": {"query": ["z"]}}, r"`structure\.query` should be a list of keys of `types`"),
        ({"structure": {"query": []}}, r"`structure\.query` should be a list of keys of `types`"),
        ({"parameters": {"default_route": "z"}}, "there is no route 'z': `structure` has query, document"),
        ({"parameters": {"route_mappings": []}, "structure": {}}, "`structure` should be an object"),
        ({"parameters": {"route_mappings": ["a"]}}, "`route_mappings` should be an object"),
        ({"parameters": {"route_mappings": {"query": "query"}}}, "not a task and a modality"),
        ({"parameters": {"route_mappings": {"('query', 'text')": "z"}}}, "there is no route 'z'"),
    ],
)
def test_damaged_files(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    write(tmp_path, **values)
    with pytest.raises(CheckpointError, match=problem):
        read_routes(tmp_path, "")


def test_modules_of_the_sides(tmp_path: Path) -> None:
    """What follows a Router belongs to each side; the main side is the one that has a Transformer."""
    entries = [("", "m.Router"), ("1_Normalize", "m.Normalize")]
    write_json(tmp_path / "modules.json", [{"path": path, "type": type_} for path, type_ in entries])
    types = {"q": "x.StaticEmbedding", "d": "x.Transformer", "p": "x.Pooling"}
    structure = {"query": ["q"], "document": ["d", "p"]}
    write(tmp_path, types=types, structure=structure, parameters={"default_route": "query"})
    assert router_files(tmp_path) == ("router_config.json", "config.json")
    found = read_module_paths(tmp_path)
    assert (found.transformer, found.pooling, found.static) == ("d", "p", None)
    assert found.router is not None
    assert (found.router.own, found.router.default) == ("document", "query")
    assert found.router.sides["query"].static is Static.VECTORS


def test_folders_outside_of_the_checkpoint(tmp_path: Path) -> None:
    write_json(tmp_path / "modules.json", [{"path": "", "type": "m.Router"}])
    write(tmp_path, types={"../q": "x.Transformer"}, structure={"query": ["../q"]}, parameters={})
    with pytest.raises(CheckpointError, match="outside of the checkpoint"):
        read_module_paths(tmp_path)
