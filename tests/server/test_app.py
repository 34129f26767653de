"""What each route answers, on a fake engine."""

from __future__ import annotations

import base64
import logging
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeEngine, fake_info, fake_model, fake_tokenizer, pooled_vector, token_vectors
from tests.server.client import Client
from text_embeddings_inference.server.accounting import Served
from text_embeddings_inference.server.app import WARN_EVERY_S, Catalogue
from text_embeddings_inference.settings import Limits, Settings
from text_embeddings_inference.types import Kind, Pooling

RAW = {"normalize": False}
INFO_KEYS = """
model_id model_sha model_dtype served_model_name model_type max_concurrent_requests max_input_length max_batch_tokens
max_batch_requests max_client_batch_size auto_truncate tokenization_workers version sha docker_label
"""


def vector(*ids: int) -> list[float]:
    return [float(x) for x in pooled_vector(list(ids), 4)]


# --- embeddings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("1 2", [vector(1, 2)]),
        (["1 2"], [vector(1, 2)]),
        (["1", "2 3"], [vector(1), vector(2, 3)]),
        ([1, 2], [vector(1, 2)]),
        ([[1], [2, 3]], [vector(1), vector(2, 3)]),
        (["1", [2, 3]], [vector(1), vector(2, 3)]),
    ],
)
@pytest.mark.parametrize("path", ["/embed", "/", "/invocations"])
def test_embed_takes_texts_ids_and_lists_of_them(path: str, inputs: Any, expected: list[list[float]]) -> None:
    with Client() as client:
        response = client.post(path, {"inputs": inputs} | RAW)
    assert (response.status, response.json) == (200, expected)


def test_embed_normalizes_after_cutting_to_dimensions() -> None:
    with Client() as client:
        (found,) = client.post("/embed", {"inputs": "3 4", "dimensions": 2}).json
    expected = np.array(vector(3, 4)[:2]) / np.linalg.norm(vector(3, 4)[:2])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_zero_vectors_are_null() -> None:
    engine = FakeEngine()
    engine.zero_ids.add(7)
    with Client(fake_model(engine)) as client:
        assert client.post("/embed", {"inputs": "7"}).json == [[None] * 4]


def test_embed_all_gives_a_vector_for_each_token() -> None:
    with Client() as client:
        found = client.post("/embed_all", {"inputs": ["1 2", "3"]}).json
    expected = [token_vectors([1, 2], 4), token_vectors([3], 4)]
    assert all(np.array_equal(np.float32(f), e) for f, e in zip(found, expected, strict=True))


def test_embed_sparse_gives_what_is_not_zero() -> None:
    info = fake_info(pooling=Pooling.SPLADE)
    engine = FakeEngine()
    engine.zero_ids.add(9)
    with Client(fake_model(engine, info=info)) as client:
        found = client.post("/embed_sparse", {"inputs": ["1 2", "9"]}).json
        assert client.post("/", {"inputs": ["1 2", "9"]}).json == found
    assert found == [[{"index": i, "value": x} for i, x in enumerate(vector(1, 2))], []]


def test_prompts_and_truncation_reach_the_tokenizer() -> None:
    model = fake_model(tokenizer=fake_tokenizer(max_input_length=3))
    with Client(model) as client:
        prompted = client.post("/embed", {"inputs": "9", "prompt_name": "query"} | RAW).json
        left = client.post("/embed", {"inputs": "1 2 3 4", "truncation_direction": "left"} | RAW).json
        refused = client.post("/embed", {"inputs": "1 2 3 4", "truncate": False})
    assert (prompted, left) == ([vector(1, 9)], [vector(2, 3, 4)])
    assert refused.json == {
        "error": "Input validation error: `inputs` must have less than 3 tokens. Given: 4",
        "error_type": "Validation",
    }


def test_auto_truncate_is_the_default_of_truncate() -> None:
    with Client(fake_model(tokenizer=fake_tokenizer(max_input_length=3)), auto_truncate=False) as client:
        assert client.post("/embed", {"inputs": "1 2 3 4"}).status == 422
        assert client.post("/embed", {"inputs": "1 2 3 4", "truncate": None}).status == 422
        assert client.post("/embed", {"inputs": "1 2 3 4", "truncate": True}).status == 200
        assert client.post("/embeddings", {"input": "1 2 3 4"}).status == 422


def test_similarity_is_the_cosine_of_raw_vectors() -> None:
    with Client() as client:
        body = {"inputs": {"source_sentence": "1 2", "sentences": ["1 2", "5"]}, "parameters": {"truncate": True}}
        found = client.post("/similarity", body)
    one, other = vector(1, 2), vector(5)
    cosine = np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(found.json, [1, cosine], rtol=1e-6)
    assert found.headers["x-compute-tokens"] == "5"


def test_task_makes_similarity_the_default() -> None:
    body = {"inputs": {"source_sentence": "1", "sentences": ["1"]}}
    with Client(task="sentence-similarity") as client:
        assert client.post("/", body).json == [1.0]
        assert client.post("/invocations", body).json == [1.0]
    with Client(task="something") as client:
        assert client.post("/", body).status == 422


# --- scores -----------------------------------------------------------------------------------------------------------

CLASSIFIER = fake_info(Kind.CLASSIFIER)
RERANKER = fake_info(Kind.RERANKER)


def test_predict_tells_single_pair_and_batch_apart() -> None:
    with Client(fake_model(info=CLASSIFIER)) as client:
        one = client.post("/predict", {"inputs": "1", "raw_scores": True}).json
        listed = client.post("/", {"inputs": ["1"], "raw_scores": True}).json
        pair = client.post("/predict", {"inputs": ["1", "2"], "raw_scores": True}).json
        batch = client.post("/predict", {"inputs": [["1"], ["1", "2"]], "raw_scores": True}).json
    assert one == [{"score": 1.0, "label": label} for label in "dcba"]
    assert listed == one
    assert {p["label"]: p["score"] for p in pair} == dict(zip("abcd", vector(1, 2), strict=True))
    assert batch == [one, pair]


def test_rerank_is_best_first_with_texts_on_request() -> None:
    texts = ["1", "1 2", "1 2 3", "4 5"]
    with Client(fake_model(info=RERANKER)) as client:
        raw = client.post("/rerank", {"query": "9", "texts": texts, "raw_scores": True, "return_text": True})
        plain = client.post("/", {"query": "9", "texts": texts})
    ranks = [(r["index"], r["text"], r["score"]) for r in raw.json]
    assert ranks == [(2, "1 2 3", 4.0), (3, "4 5", 3.0), (1, "1 2", 3.0), (0, "1", 2.0)]
    assert [list(rank) for rank in raw.json] == [["index", "text", "score"]] * 4
    assert [list(rank) for rank in plain.json] == [["index", "score"]] * 4
    assert plain.json[0]["score"] == pytest.approx(1 / (1 + np.exp(-4.0)))
    assert raw.headers["x-compute-characters"] == str(4 + sum(map(len, texts)))


# --- tokenizer, vertex, info ------------------------------------------------------------------------------------------


def test_tokenize_and_decode() -> None:
    token = {"id": 12, "text": "12", "special": False, "start": 0, "stop": 2}
    with Client() as client:
        assert client.post("/tokenize", {"inputs": "12"}).json == [[token]]
        assert client.post("/tokenize", {"inputs": ["12"]}).json == [[token]]
        assert client.post("/decode", {"ids": [1, 2]}).json == ["1 2"]
        assert client.post("/decode", {"ids": [[1], [2]]}).json == ["1", "2"]
        assert client.post("/tokenize", {"inputs": []}).json == {
            "error": "`inputs` cannot be empty",
            "error_type": "Empty",
        }
        assert client.post("/decode", {"ids": []}).json["error"] == (
            "Input validation error: `input_ids` cannot be empty"
        )


def test_vertex_answers_each_instance() -> None:
    with Client() as client:
        found = client.post("/vertex", {"instances": [{"inputs": "1"} | RAW, {"inputs": ["2", "3"]} | RAW]})
        assert found.json == {"predictions": [[vector(1)], [vector(2), vector(3)]]}
        assert not [name for name in found.headers if name.startswith("x-")]
        assert client.post("/vertex", {"instances": []}).json == {"predictions": []}
        reranking = client.post("/vertex", {"instances": [{"query": "1", "texts": ["2"]}]})
        assert (reranking.status, reranking.json["error"]) == (424, "Backend error: model is not a re-ranker model")


def test_vertex_runs_nothing_if_an_instance_is_wrong() -> None:
    engine = FakeEngine()
    with Client(fake_model(engine)) as client:
        found = client.post("/vertex", {"instances": [{"inputs": "1"}, {"inputs": ["2", 3]}]})
    assert (found.status, found.json["error_type"]) == (422, "Validation")
    assert found.json["error"].startswith("instances[1].inputs[1]: ")
    assert engine.batches == []


def test_info_keys_in_order() -> None:
    with Client(fake_model(limits=Limits(max_batch_requests=0)), tokenization_workers=3) as client:
        found = client.get("/info").json
    assert list(found)[:15] == INFO_KEYS.split()
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (found["version"], found["max_batch_requests"], found["tokenization_workers"]) == ("1.9.3", None, 3)


def test_info_of_a_classifier() -> None:
    with Client(fake_model(info=CLASSIFIER)) as client:
        model_type = client.get("/info").json["model_type"]
    assert model_type == {
        "classifier": {
            "id2label": {"0": "a", "1": "b", "2": "c", "3": "d"},
            "label2id": {"a": 0, "b": 1, "c": 2, "d": 3},
        }
    }


# --- OpenAI -----------------------------------------------------------------------------------------------------------


def test_openai_embeddings() -> None:
    with Client() as client:
        found = client.post("/v1/embeddings", {"input": ["1 2", "3"], "model": "fake/model"}).json
        packed = client.post("/embeddings", {"input": ["1 2", "3"], "encoding_format": "base64"}).json
    assert list(found) == ["object", "data", "model", "usage"]
    assert (found["object"], found["model"]) == ("list", "fake/model")
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [(list(d), d["object"], d["index"]) for d in found["data"]] == [
        (["object", "embedding", "index"], "embedding", 0),
        (["object", "embedding", "index"], "embedding", 1),
    ]
    for plain, coded in zip(found["data"], packed["data"], strict=True):
        decoded = np.frombuffer(base64.b64decode(coded["embedding"]), "<f4")
        assert decoded.tolist() == np.float32(plain["embedding"]).tolist()


def test_openai_errors_have_both_shapes() -> None:
    with Client() as client:
        found = client.post("/v1/embeddings", {"input": ""})
        malformed = client.request("POST", "/v1/embeddings", b"{")
        unknown = client.get("/v1/models")
    message = "Input validation error: `inputs` cannot be empty"
    assert found.status == 400
    assert found.json == {
        "message": message,
        "code": 400,
        "type": "Empty",
        "error": {"message": message, "type": "Empty", "param": None, "code": 400},
    }
    assert (malformed.status, malformed.json["type"]) == (400, "Malformed")
    assert (unknown.status, unknown.json["error"]["type"]) == (404, "NotFound")


def test_requests_that_name_another_model_share_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with Client() as client:
        for name in ("other", "other", "another", "fake/model", None):
            assert client.post("/v1/embeddings", {"input": "1", "model": name}).status == 200
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "Requests name another model than `fake/model`, which answers them: 1"
    ]


def test_the_next_warning_tells_of_all_since(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0, 0, 1, 2, WARN_EVERY_S, WARN_EVERY_S])
    with Client() as client:
        served = Served.of(client.model, Settings.of(model_id="fake"))
        catalogue = Catalogue({"fake": served}, clock=lambda: next(times))
        for _ in range(4):
            assert catalogue.find("other") is served
    assert [message.rpartition(" ")[2] for message in caplog.messages] == ["1", "3"]


# --- several models ---------------------------------------------------------------------------------------------------


def test_a_request_is_answered_by_the_model_that_it_names() -> None:
    first, second = fake_model(FakeEngine(dimensions=4)), fake_model(FakeEngine(dimensions=2))
    catalogue = Catalogue(
        {name: Served.of(model, Settings.of(model_id="x")) for name, model in (("a", first), ("b", second))}
    )
    assert catalogue.find("b").model is second
    assert catalogue.find("a").model is first
    assert catalogue.find(None).model is first
    for model in (first, second):
        model.stop()
