"""In which order a request is refused, and what its client is told: path, key, method, content type, size; CORS."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.fakes import FakeEngine, fake_info, fake_model, fake_tokenizer, pooled_vector
from tests.server.client import JSON, Client, Exchange
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import Kind

RAW = {"normalize": False}


def vector(*ids: int) -> list[float]:
    return [float(x) for x in pooled_vector(list(ids), 4)]


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
            request = Exchange("POST", "/embed", [b"x" * 10] * 1000, JSON)
            assert (await request.answer(client.app)).status == 413
            assert request.read == len(body) // 10 + 1

        async def announced() -> None:
            request = Exchange("POST", "/embed", [b"x"] * 9, JSON | {"content-length": "9999"})
            assert ((await request.answer(client.app)).status, request.read) == (413, 0)

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


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/embed", {"inputs": ["1", ""]}, "inputs[1]"),
        ("/embed", {"inputs": ""}, "inputs"),
        ("/embed", {"inputs": ["1", "2", "1 2 3 4 5 6", "3"], "truncate": False}, "inputs[2]"),
        ("/embed", {"inputs": ["1", [1], []]}, "inputs[2]"),
        ("/embed_all", {"inputs": ["1", ""]}, "inputs[1]"),
        ("/v1/embeddings", {"input": ["1", ""]}, "input[1]"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["1"]}}, "inputs.source_sentence"),
        ("/similarity", {"inputs": {"source_sentence": "1", "sentences": ["1", ""]}}, "inputs.sentences[1]"),
        ("/tokenize", {"inputs": ["1", ""]}, "inputs[1]"),
        ("/decode", {"ids": [[1], []]}, "ids[1]"),
        ("/vertex", {"instances": [{"inputs": "1"}, {"inputs": ["1", ""]}]}, "instances[1].inputs[1]"),
    ],
)
def test_the_place_of_an_input_that_cannot_be_used(
    path: str, body: Any, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In a header and in the log: the message is text-embeddings-inference's."""
    with Client(fake_model(tokenizer=fake_tokenizer(max_input_length=3))) as client:
        found = client.post(path, body)
    assert 400 <= found.status < 500
    assert found.headers["x-error-place"] == place
    assert f"`{place}`" not in found.body.decode() or place == "inputs"
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    (span,) = [span for record in failed for span in getattr(record, "spans", ()) if span.fields]
    assert place.endswith(span.fields["place"])


def test_the_place_of_a_pair() -> None:
    with Client(fake_model(info=fake_info(Kind.CLASSIFIER))) as client:
        found = client.post("/predict", {"inputs": [["1", "2"], [""]]})
    assert (found.status, found.headers["x-error-place"]) == (400, "inputs[1]")


def test_no_place_where_it_is_no_single_inputs_fault() -> None:
    with Client() as client:
        for body in ({"inputs": ["1"] * 33}, {"inputs": "1", "dimensions": 0}):
            assert "x-error-place" not in client.post("/embed", body).headers


# --- what can't be answered is refused --------------------------------------------------------------------------------


def test_more_instances_than_permits() -> None:
    engine = FakeEngine()
    with Client(fake_model(engine, limits=Limits(max_concurrent_requests=3))) as client:
        found = client.post("/vertex", {"instances": [{"inputs": "1"}] * 4})
    assert (found.status, found.json["error"]) == (422, "batch size 4 > maximum allowed batch size 3")
    assert engine.batches == []


def test_large_batches_are_counted_as_failures() -> None:
    with Client() as client:
        found = client.post("/embed", {"inputs": ["1"] * 5000})
        metrics = client.get("/metrics").body.decode()
    assert found.json["error"] == "batch size over 1024 > maximum allowed batch size 32"
    assert 'te_request_failure{err="batch_size"} 1' in metrics


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_compressed_bodies(coding: str) -> None:
    with Client() as client:
        found = client.post("/embed", {"inputs": "1"}, JSON | {"content-encoding": coding})
        assert client.post("/embed", {"inputs": "1"}, JSON | {"content-encoding": "identity"}).status == 200
    assert (found.status, found.json["error_type"]) == (415, "UnsupportedMediaType")
    assert f"`Content-Encoding: {coding}`" in found.json["error"]
    assert found.headers["accept-encoding"] == "identity"
