"""Limits, permits, clients that leave, failures; and what is told in headers, metrics and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeEngine, fake_info, fake_model, pooled_vector, until
from tests.server.client import Client
from text_embeddings_inference.errors import OverloadedError
from text_embeddings_inference.server.accounting import Accounting
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import Kind

RAW = {"normalize": False}


def vector(*ids: int) -> list[float]:
    return [float(x) for x in pooled_vector(list(ids), 4)]


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
            second = asyncio.create_task(client.answer("POST", "/embed", [b'{"inputs": "2"}']))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.wait([second])
            assert second.cancelled()
            third = asyncio.create_task(client.answer("POST", "/embed", [b'{"inputs": "3"}']))
            await asyncio.sleep(0)
            engine.let()
            assert {(await first).status, (await third).status} == {200}

        client.run(scenario())
    assert [2] not in [ids for ran in engine.batches for ids in ran.inputs]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_engine_failure_and_health() -> None:
    engine = FakeEngine()
    engine.bad_ids.add(13)
    model = fake_model(engine)
    with Client(model) as client:
        assert client.get("/health").status == 200
        failed = client.post("/embed", {"inputs": "13"})
        assert (failed.status, failed.json["error_type"]) == (424, "Backend")
        assert failed.json["error"] == "Backend error: the engine failed on this input: see the server's log"
        engine.wait_for(2)  # one token ran
        assert client.get("/health").status == 200
        engine.bad_ids.add(0)
        client.post("/embed", {"inputs": "13"})
        until(lambda: not model.healthy)
        sick = client.get("/ping")
    assert (sick.status, sick.json) == (503, {"error": "unhealthy", "error_type": "Unhealthy"})


def test_health_is_told_while_a_batch_runs_and_others_wait() -> None:
    engine = FakeEngine()
    engine.hold()
    with Client(fake_model(engine)) as client:

        async def scenario() -> None:
            waiting = [asyncio.create_task(client.answer("POST", "/embed", [b'{"inputs": "1"}'])) for _ in range(3)]
            await asyncio.sleep(0.01)
            assert (await client.answer("GET", "/health", [])).status == 200
            assert not any(task.done() for task in waiting)
            engine.let()
            await asyncio.gather(*waiting)

        client.run(scenario())


def test_nan_scores() -> None:
    engine = FakeEngine()
    engine.nan_ids.add(1)
    with Client(fake_model(engine, info=fake_info(Kind.CLASSIFIER))) as client:
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
        assert not names.intersection(found.headers)


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


@pytest.mark.parametrize(
    ("path", "single", "batch"),
    [
        ("/embed", {"inputs": "1"}, {"inputs": ["1"]}),
        ("/embed_all", {"inputs": [1]}, {"inputs": [[1]]}),
        ("/v1/embeddings", {"input": "1"}, {"input": ["1"]}),
        ("/tokenize", {"inputs": "1"}, {"inputs": ["1"]}),
        ("/decode", {"ids": [1]}, {"ids": [[1]]}),
        ("/predict", {"inputs": ["1"]}, {"inputs": [["1"]]}),
        ("/rerank", None, {"query": "1", "texts": ["1"]}),
    ],
)
def test_no_batches_where_their_limit_is_0(path: str, single: Any, batch: Any) -> None:
    info = fake_info({"/predict": Kind.CLASSIFIER, "/rerank": Kind.RERANKER}.get(path, Kind.EMBEDDING))
    with Client(fake_model(info=info, limits=Limits(max_client_batch_size=0))) as client:
        if single is not None:
            assert client.post(path, single).status == 200
        refused = client.post(path, batch)
    assert refused.status == 422
    assert "batch size 1 > maximum allowed batch size 0" in refused.body.decode()


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


def test_refusals_are_logged_together_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock, told = FakeClock(), []
    with fake_model() as model:
        accounting = Accounting(model, clock)
    for seconds in (0, 0.25, 0.5, 0.25, 0.5):
        clock.advance(seconds)
        accounting.refused("embed", OverloadedError())
        told.append([vars(record)["spans"][0].fields["requests"] for record in caplog.records])
    assert told == [[1], [1], [1], [1, 3], [1, 3]]
    assert {record.getMessage() for record in caplog.records} == {"Model is overloaded"}
