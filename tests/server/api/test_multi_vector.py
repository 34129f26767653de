"""Models that give more than one vector: ColBERT and bge-m3, over HTTP and in process, against their references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loaded import loaded_model
from tests.server.client import Client
from text_embeddings_inference import EncodeOptions, load
from text_embeddings_inference.errors import ModelTypeError
from text_embeddings_inference.settings import Settings

MODELS = Path(__file__).parents[2] / "fixtures" / "models"
TOLERANCE = 1e-4


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MODELS / name / "expected.json").read_text())
    return content


COLBERT, M3 = expected("colbert"), expected("bge-m3")
ROLES = {"query": COLBERT["colbert"]["queries"], "document": COLBERT["colbert"]["documents"]}


def serve(name: str, **options: Any) -> Client:
    settings = Settings.of(model_id=str(MODELS / name), dtype="float32", streams=1, **options)
    return Client(loaded_model(settings), settings)


@pytest.fixture(scope="module")
def colbert() -> Iterator[Client]:
    with serve("colbert") as client:
        yield client


@pytest.fixture(scope="module")
def m3() -> Iterator[Client]:
    with serve("bge-m3") as client:
        yield client


def check_vectors(found: Any, cases: list[dict[str, Any]], key: str) -> None:
    assert len(found) == len(cases) > 0
    for vectors, case in zip(found, cases, strict=True):
        np.testing.assert_allclose(vectors, case[key], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("role", ROLES)
def test_colbert_in_a_role(colbert: Client, role: str) -> None:
    texts = [case["text"] for case in ROLES[role]]
    answer = colbert.post("/embed_all", {"inputs": texts, "prompt_name": role})
    check_vectors(answer.json, ROLES[role], "embeddings")
    tokens = sum(len(case["input_ids"]) for case in ROLES[role])
    assert answer.headers["x-compute-tokens"] == str(tokens)


@pytest.mark.parametrize("more", [{}, {"multi_vector": True}])
@pytest.mark.parametrize("path", ["/embed_all", "/", "/invocations"])
def test_colbert_without_a_role(colbert: Client, path: str, more: dict[str, Any]) -> None:
    cases = [case for case in COLBERT["texts"] if "token_embeddings" in case]
    answer = colbert.post(path, {"inputs": [case["text"] for case in cases]} | more)
    check_vectors(answer.json, cases, "token_embeddings")


def test_colbert_in_a_default_role() -> None:
    with serve("colbert", default_prompt_name="document") as client:
        texts = [case["text"] for case in ROLES["document"]]
        check_vectors(client.post("/embed_all", {"inputs": texts}).json, ROLES["document"], "embeddings")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
    ],
)
def test_colbert_pools_nothing(colbert: Client, path: str, body: dict[str, Any]) -> None:
    answer = colbert.post(path, body)
    assert answer.status == 424
    assert "use `embed_all`" in answer.body.decode()


def test_colbert_through_vertex(colbert: Client) -> None:
    case = ROLES["query"][0]
    answer = colbert.post("/vertex", {"instances": [{"inputs": case["text"], "prompt_name": "query"}]})
    check_vectors(answer.json["predictions"][0], [case], "embeddings")


def test_colbert_cuts_and_fills_within_the_batch_tokens() -> None:
    with serve("colbert", max_batch_tokens=12) as client:
        [found] = client.post("/embed_all", {"inputs": "What is Deep Learning?", "prompt_name": "query"}).json
        assert len(found) == 12


def test_m3_gives_last_hidden_states(m3: Client) -> None:
    cases = [case for case in M3["texts"] if "last_hidden_state" in case]
    answer = m3.post("/embed_all", {"inputs": [case["text"] for case in cases]})
    check_vectors(answer.json, cases, "last_hidden_state")


def test_m3_gives_vectors_for_late_interaction(m3: Client) -> None:
    cases = [case for case in M3["texts"] if "colbert" in case]
    answer = m3.post("/embed_all", {"inputs": [case["text"] for case in cases], "multi_vector": True})
    check_vectors(answer.json, cases, "colbert")


def test_m3_gives_lexical_weights(m3: Client) -> None:
    answer = m3.post("/embed_sparse", {"inputs": [case["text"] for case in M3["texts"]]})
    assert answer.status == 200
    for found, case in zip(answer.json, M3["texts"], strict=True):
        assert [entry["index"] for entry in found] == sorted(map(int, case["sparse"]))
        for entry in found:
            assert abs(entry["value"] - case["sparse"][str(entry["index"])]) <= TOLERANCE


def test_m3_gives_embeddings(m3: Client) -> None:
    answer = m3.post("/embed", {"inputs": [case["text"] for case in M3["texts"]]})
    check_vectors(answer.json, M3["texts"], "embedding")


def test_other_models_have_no_head_for_late_interaction() -> None:
    with Client() as client:
        answer = client.post("/embed_all", {"inputs": "1", "multi_vector": True})
        assert (answer.status, answer.json["error_type"]) == (424, "Backend")
        assert "`multi_vector` is not available" in answer.json["error"]
        assert client.post("/embed_all", {"inputs": "1", "multi_vector": None}).status == 422


def test_colbert_in_process() -> None:
    with load(MODELS / "colbert", dtype="float32", streams=1) as model:
        for role, cases in ROLES.items():
            texts = [case["text"] for case in cases]
            check_vectors(model.embed_all(texts, options=EncodeOptions(prompt_name=role)), cases, "embeddings")
        with pytest.raises(ModelTypeError, match="use `embed_all`"):
            model.embed(["a"])
        with pytest.raises(ModelTypeError, match="SPLADE"):
            model.embed_sparse(["a"])


def test_m3_in_process() -> None:
    with load(MODELS / "bge-m3", dtype="float32", streams=1) as model:
        case = M3["texts"][0]
        check_vectors(model.embed_all([case["text"]]), [case], "last_hidden_state")
        check_vectors(model.embed_all([case["text"]], multi_vector=True), [case], "colbert")
        [weights] = model.embed_sparse([case["text"]])
        assert weights.indices.tolist() == sorted(map(int, case["sparse"]))
