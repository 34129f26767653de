"""Routes, the order in which a request is refused, limits, and what is counted; on a fake engine."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeEngine, fake_info, fake_model, fake_tokenizer, pooled_vector, token_vectors
from tests.server.client import JSON, Client, Request
from text_embeddings_inference.inference import Limits
from text_embeddings_inference.types import Kind, Pooling

RAW = {"normalize": False}


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
    assert list(found)[:15] == [
        "model_id",
        "model_sha",
        "model_dtype",
        "served_model_name",
        "model_type",
        "max_concurrent_requests",
        "max_input_length",
        "max_batch_tokens",
        "max_batch_requests",
        "max_client_batch_size",
        "auto_truncate",
        "tokenization_workers",
        "version",
        "sha",
        "docker_label",
    ]
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


def test_openai_warns_of_another_model_name(caplog: pytest.LogCaptureFixture) -> None:
    with Client() as client:
        assert client.post("/v1/embeddings", {"input": "1", "model": "other"}).status == 200
    assert "`other`" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


# --- refusals, in their order -----------------------------------------------------------------------------------------


def test_unknown_path_comes_before_the_key() -> None:
    with Client(api_key=("secret",)) as client:
        found = client.get("/nothing")
        assert client.post("/embed/", {"inputs": "1"}).status == 404
    assert (found.status, found.json) == (
        404,
        {"error": "there is no route /nothing", "error_type": "NotFound"},
    )


@pytest.mark.parametrize("given", [None, "secret", "bearer secret", "Bearer nope", "Bearer ", "Bearer secretx"])
def test_key_comes_before_method_and_body(given: str | None) -> None:
    headers = JSON | ({} if given is None else {"authorization": given})
    with Client(api_key=("secret",)) as client:
        for method, path in [("POST", "/embed"), ("GET", "/embed"), ("GET", "/info"), ("POST", "/")]:
            found = client.request(method, path, b"{", headers)
            assert (found.status, found.json["error_type"]) == (401, "Unauthorized"), (method, path)
        assert client.request("PUT", "/", b"", headers).status == 405
        for path in ("/", "/health", "/ping", "/metrics", "/docs/", "/api-doc/openapi.json"):
            assert client.request("GET", path, b"", headers).status == 200


def test_any_of_several_keys_opens() -> None:
    with Client(api_key=("first", "zweiter-Schlüssel")) as client:
        for key in (b"first", "zweiter-Schlüssel".encode()):
            headers = JSON | {"authorization": f"Bearer {key.decode('latin-1')}"}
            assert client.post("/embed", {"inputs": "1"}, headers).status == 200


def test_empty_key_locks_everybody_out() -> None:
    with Client(api_key=("",)) as client:
        for given in ("Bearer ", "Bearer", ""):
            assert client.post("/embed", {"inputs": "1"}, JSON | {"authorization": given}).status == 401


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/embed", "POST"),
        ("HEAD", "/embed", "POST"),
        ("DELETE", "/info", "GET,HEAD"),
        ("POST", "/health", "GET,HEAD"),
        ("PUT", "/", "POST,GET,HEAD"),
    ],
)
def test_wrong_method(method: str, path: str, allow: str) -> None:
    with Client() as client:
        found = client.request(method, path)
    assert (found.status, found.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert found.json["error_type"] == "MethodNotAllowed"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("text/json", 415),
        ("application/jsonl", 415),
        (None, 415),
    ],
)
def test_content_type(content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    with Client() as client:
        assert client.post("/embed", {"inputs": "1"}, headers).status == status


def test_payload_limit_is_exact_and_holds_while_the_body_arrives() -> None:
    body = json.dumps({"inputs": "1"}).encode()
    with Client(payload_limit=len(body)) as client:
        assert client.request("POST", "/embed", body).status == 200
        found = client.request("POST", "/embed", body + b" ")
        assert (found.status, found.json["error_type"]) == (413, "PayloadTooLarge")

        async def slowly() -> None:
            request = Request("POST", "/embed", [b"x" * 10] * 1000, JSON)
            await client.app(request.scope, request.receive, request.send)
            assert request.response is not None
            assert request.response.status == 413
            assert request.read == len(body) // 10 + 1

        async def announced() -> None:
            request = Request("POST", "/embed", [b"x"] * 9, JSON | {"content-length": "9999"})
            await client.app(request.scope, request.receive, request.send)
            assert request.response is not None
            assert (request.response.status, request.read) == (413, 0)

        client.run(slowly())
        client.run(announced())


def test_body_may_come_in_pieces() -> None:
    body = json.dumps({"inputs": "1 2"} | RAW).encode()
    with Client() as client:
        found = client.run(client.answer("POST", "/embed", [body[:3], b"", body[3:]]))
    assert found.json == [vector(1, 2)]


# --- CORS -------------------------------------------------------------------------------------------------------------

VARY = "origin, access-control-request-method, access-control-request-headers"


@pytest.mark.parametrize("origins", [(), ("*",), ("https://a.example", "*")])
def test_any_origin(origins: tuple[str, ...]) -> None:
    with Client(cors_allow_origin=origins, api_key=("secret",)) as client:
        for found in (client.get("/health"), client.get("/nothing"), client.post("/embed", {})):
            assert (found.headers["vary"], found.headers["access-control-allow-origin"]) == (VARY, "*")


def test_listed_origins() -> None:
    with Client(cors_allow_origin=("https://a.example", "https://b.example")) as client:
        known = client.get("/health", {"origin": "https://b.example"})
        unknown = client.get("/health", {"origin": "https://c.example"})
        none = client.get("/health")
    assert known.headers["access-control-allow-origin"] == "https://b.example"
    for found in (unknown, none):
        assert (found.status, found.headers["vary"]) == (200, VARY)
        assert "access-control-allow-origin" not in found.headers


def test_options_ends_at_once() -> None:
    with Client(api_key=("secret",)) as client:
        known, unknown = client.request("OPTIONS", "/embed"), client.request("OPTIONS", "/nothing")
    for found in (known, unknown):
        assert (found.status, found.body) == (200, b"")
        assert found.headers["access-control-allow-methods"] == "GET,POST"
        assert found.headers["access-control-allow-headers"] == "content-type,authorization"
    assert known.headers["allow"] == "POST"
    assert "allow" not in unknown.headers


# --- limits, permits, clients that leave ------------------------------------------------------------------------------


def test_batch_size_and_model_type() -> None:
    with Client(fake_model(limits=Limits(max_client_batch_size=2))) as client:
        large = client.post("/embed", {"inputs": ["1", "2", "3"]})
        wrong = client.post("/predict", {"inputs": "1"})
    assert (large.status, large.json) == (
        422,
        {"error": "batch size 3 > maximum allowed batch size 2", "error_type": "Validation"},
    )
    assert (wrong.status, wrong.json) == (
        424,
        {"error": "Backend error: Model is not a classifier model", "error_type": "Backend"},
    )


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/embed", {"inputs": [1, 100]}, "inputs[1]"),
        ("/embed_all", {"inputs": ["1", [2, 3, 999]]}, "inputs[1][2]"),
        ("/v1/embeddings", {"input": [100]}, "input[0]"),
    ],
)
def test_ids_outside_the_vocabulary_are_named(path: str, body: dict[str, Any], place: str) -> None:
    with Client() as client:
        found = client.post(path, body)
    assert found.status == 422
    message = found.json.get("message", found.json["error"])
    assert message.startswith(f"Input validation error: `{place}`: token id ")


def test_no_permit_left() -> None:
    engine = FakeEngine()
    with Client(fake_model(engine, limits=Limits(max_concurrent_requests=2))) as client:

        async def scenario() -> None:
            engine.hold()
            body = json.dumps({"inputs": ["1", "2"]} | RAW).encode()
            running = asyncio.create_task(client.answer("POST", "/embed", [body]))
            await asyncio.to_thread(engine.wait_for, 1)
            refused = await client.answer("POST", "/embed", [b'{"inputs": "3"}'])
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.json == {"error": "Model is overloaded", "error_type": "Overloaded"}
            engine.let()
            assert (await running).json == [vector(1), vector(2)]
            assert (await client.answer("POST", "/embed", [b'{"inputs": "3"}'])).status == 200

        client.run(scenario())


def test_client_that_leaves_frees_its_permit_and_is_not_run() -> None:
    engine = FakeEngine()
    with Client(fake_model(engine, limits=Limits(max_concurrent_requests=2))) as client:

        async def scenario() -> None:
            engine.hold()
            first = asyncio.create_task(client.answer("POST", "/embed", [b'{"inputs": "1"}']))
            await asyncio.to_thread(engine.wait_for, 1)
            leaving = Request("POST", "/embed", [b'{"inputs": "2"}'], JSON)
            second = asyncio.create_task(client.app(leaving.scope, leaving.receive, leaving.send))
            await asyncio.sleep(0)
            leaving.gone.set()
            await second
            assert leaving.response is None
            third = asyncio.create_task(client.answer("POST", "/embed", [b'{"inputs": "3"}']))
            await asyncio.sleep(0)
            engine.let()
            assert {(await first).status, (await third).status} == {200}

        client.run(scenario())
    assert [2] not in [ids for ran in engine.batches for ids in ran.inputs]


def test_client_that_leaves_in_the_middle_of_its_body() -> None:
    with Client() as client:

        async def scenario() -> None:
            request = Request("POST", "/embed", [], JSON)
            request.gone.set()
            await client.app(request.scope, request.receive, request.send)
            assert request.response is None

        client.run(scenario())


# --- failures ---------------------------------------------------------------------------------------------------------


def test_engine_failure_and_health() -> None:
    engine = FakeEngine()
    engine.bad_ids.add(13)
    with Client(fake_model(engine)) as client:
        assert client.get("/health").status == 200
        failed = client.post("/embed", {"inputs": "13"})
        assert (failed.status, failed.json["error_type"]) == (424, "Backend")
        assert failed.json["error"] == "Backend error: bad input [13]"
        assert client.get("/health").status == 200  # one token runs
        engine.bad_ids.add(0)
        client.post("/embed", {"inputs": "13"})
        sick = client.get("/ping")
    assert (sick.status, sick.json) == (503, {"error": "unhealthy", "error_type": "Unhealthy"})


def test_nan_scores() -> None:
    engine = FakeEngine()
    engine.nan_ids.add(1)
    with Client(fake_model(engine, info=CLASSIFIER)) as client:
        found = client.post("/predict", {"inputs": "1"})
    assert (found.status, found.json) == (424, {"error": "score is NaN", "error_type": "Backend"})


def test_unforeseen_error_is_logged_and_keeps_its_text_to_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("private")

    with Client() as client:
        monkeypatch.setattr(client.model, "embed", broken)
        found = client.post("/embed", {"inputs": "1"})
    assert (found.status, found.json["error_type"]) == (500, "Internal")
    assert "private" not in found.body.decode()
    assert "KeyError: 'private'" in caplog.text


# --- headers, HEAD, metrics, logs -------------------------------------------------------------------------------------

TIMING = {"x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"}


def test_headers_of_timed_routes_only() -> None:
    with Client() as client:
        timed = client.post("/embed", {"inputs": ["ab", "cde"]})
        untimed = client.post("/tokenize", {"inputs": "1"})
        failed = client.post("/embed", {"inputs": ""})
    names = {name for name in timed.headers if name.startswith("x-")}
    assert names == TIMING | {"x-compute-type", "x-compute-characters", "x-compute-tokens"}
    assert (timed.headers["x-compute-type"], timed.headers["x-compute-characters"]) == ("cpu", "5")
    assert all(re.fullmatch(r"\d+", timed.headers[name]) for name in TIMING)
    for found in (untimed, failed):
        assert not [name for name in found.headers if name.startswith("x-")]


@pytest.mark.parametrize("path", ["/", "/health", "/ping", "/info", "/metrics", "/docs/", "/api-doc/openapi.json"])
def test_head_gives_the_headers_of_get(path: str) -> None:
    with Client() as client:
        got, head = client.get(path), client.request("HEAD", path)
    assert (got.status, got.headers) == (head.status, head.headers)


def test_requests_are_counted_as_single_or_batch() -> None:
    with Client(fake_model(limits=Limits(max_client_batch_size=2))) as client:
        assert client.get("/metrics").body == b""
        client.post("/embed", {"inputs": []})
        client.post("/embed", {"inputs": "1"})
        client.post("/embed", {"inputs": ["1"]})
        client.post("/embed", {"inputs": ["1", "2", "3"]})
        client.post("/embed", {"inputs": None})
        client.post("/tokenize", {"inputs": "1"})
        client.post("/rerank", {"query": "1", "texts": ["2"]})
        client.post("/similarity", {"inputs": {"source_sentence": "1", "sentences": []}})
        client.post("/similarity", {"inputs": {"source_sentence": "1", "sentences": ["1", "2"]}})
        client.post("/similarity", {"inputs": {"source_sentence": "1", "sentences": ["1"]}})
        found = client.get("/metrics")
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    lines = found.body.decode().splitlines()
    assert [line for line in lines if line.startswith(("te_request_count{", "te_request_success{"))] == [
        'te_request_count{method="single"} 2',
        'te_request_count{method="batch"} 3',
        'te_request_success{method="single"} 1',
        'te_request_success{method="batch"} 2',
    ]


def test_success_and_failure_are_logged_in_their_span(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Client() as client:
        client.post("/embed", {"inputs": "1"})
        client.post("/v1/embeddings", {"input": ""})
    success, failure = caplog.records
    assert (success.levelname, success.getMessage()) == ("INFO", "Success")
    assert [span.name for span in success.spans] == ["embed"]  # type: ignore[attr-defined]
    assert (failure.levelname, failure.getMessage()) == (
        "ERROR",
        "Input validation error: `inputs` cannot be empty",
    )
    assert [span.name for span in failure.spans] == ["openai_embed"]  # type: ignore[attr-defined]
