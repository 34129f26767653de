"""Tables of vectors, and models with several sides, over HTTP: `prompt_name` says which side a text is for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.loaded import loaded_model
from tests.server.client import Client
from text_embeddings_inference.settings import Settings

FIXTURES = Path(__file__).parents[2] / "fixtures"


def serve(folder: Path) -> Client:
    settings = Settings.of(model_id=str(folder), dtype="float32", streams=1, threads=2)
    return Client(loaded_model(settings), settings)


def post(client: Client, path: str, body: dict[str, Any]) -> Any:
    return client.request("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})


@pytest.mark.parametrize("name", ["static-retrieval", "potion"])
def test_tables_of_vectors(name: str) -> None:
    cases = json.loads((FIXTURES / "modules" / name / "expected.json").read_text())["texts"]
    with serve(FIXTURES / "modules" / name) as client:
        answer = post(client, "/embed", {"inputs": [case["text"] for case in cases]})
        assert answer.status == 200
        np.testing.assert_allclose(answer.json, [case["embedding"] for case in cases], rtol=0, atol=1e-5)
        assert post(client, "/embed_sparse", {"inputs": "a"}).status == 424


def test_splade_without_an_option() -> None:
    case = json.loads((FIXTURES / "modules" / "st-splade-sum" / "expected.json").read_text())["texts"][0]
    with serve(FIXTURES / "modules" / "st-splade-sum") as client:
        [entries] = post(client, "/embed_sparse", {"inputs": case["text"]}).json
    found = {str(entry["index"]): entry["value"] for entry in entries}
    assert found == pytest.approx(case["sparse"], abs=1e-3)


def test_sides(tmp_path: Path) -> None:
    """A table for queries beside SPLADE for documents, asked for in one go."""
    folder = shutil.copytree(FIXTURES / "models" / "bert-splade", tmp_path / "model")
    kinds = "sentence_transformers.sparse_encoder.models."
    files: dict[str, Any] = {
        "modules.json": [{"path": "", "type": "sentence_transformers.models.Router"}],
        "router_config.json": {
            "types": {"q": kinds + "SparseStaticEmbedding", "": kinds + "MLMTransformer", "p": kinds + "SpladePooling"},
            "structure": {"query": ["q"], "document": ["", "p"]},
            "parameters": {"default_route": "document"},
        },
        "p/config.json": {"pooling_strategy": "max", "activation_function": "relu"},
    }
    for name in ("q", "p"):
        (folder / name).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    shutil.copy(folder / "tokenizer.json", folder / "q")
    save_file({"weight": np.arange(900, dtype=np.float32)}, folder / "q" / "model.safetensors")
    case = json.loads((folder / "expected.json").read_text())["texts"][0]
    with serve(folder) as client:
        asked = {"inputs": [case["text"], "a"]}
        plain, document, query = (
            post(client, "/embed_sparse", asked | name).json
            for name in ({}, {"prompt_name": "document"}, {"prompt_name": "query"})
        )
        assert plain == document
        assert {str(entry["index"]): entry["value"] for entry in plain[0]} == pytest.approx(case["sparse"], abs=1e-3)
        ids = set(case["input_ids"][1:-1])
        assert query[0] == [{"index": id_, "value": float(id_)} for id_ in sorted(ids)]
        tokens = post(client, "/tokenize", {"inputs": "a", "prompt_name": "query"})
        assert not any(token["special"] for token in tokens.json[0])
        assert post(client, "/embed_sparse", asked | {"prompt_name": "neither"}).status in (413, 422)
