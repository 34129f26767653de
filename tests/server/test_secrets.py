"""No log, at any level, has what a client sent: its texts, its names, its key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec
import pytest

from tests.fakes import FakeEngine, fake_info, fake_model, fake_tokenizer
from tests.server.client import JSON, Client
from tests.server.grpc.calling import Stub, calling, run
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.api.routes import ROUTES
from text_embeddings_inference.server.grpc.service import UNARY
from text_embeddings_inference.telemetry.logging import TRACE, JsonFormatter, TextFormatter
from text_embeddings_inference.telemetry.tracing import Span, Tracer
from text_embeddings_inference.types import Kind, Pooling

SECRET = "hunter2"
ID = 98765
KEY = {"authorization": f"Bearer {SECRET}"}
MODELS = {
    "embedding": fake_info(),
    "splade": fake_info(pooling=Pooling.SPLADE),
    "classifier": fake_info(Kind.CLASSIFIER),
    "reranker": fake_info(Kind.RERANKER),
}
POSTS = {route.path: route.post.body for route in ROUTES if route.post is not None}
BROKEN = [b'{"inputs": "hunter2', b'"hunter2"', b'{"hunter2": "hunter2"}', b"hunter2", b'{"inputs": {"hunter2": 1}}']


def bodies(path: str) -> Iterator[dict[str, Any]]:
    """Bodies whose every text is the secret, in the forms that routes take; each is refused somewhere."""
    texts: dict[str, Any] = {
        "inputs": [SECRET, [SECRET], [[SECRET, SECRET]], [[ID]], SECRET * 10_000, "", {SECRET: SECRET}],
        "input": [SECRET, [SECRET], [ID], SECRET * 10_000, ""],
        "query": [SECRET],
        "texts": [[SECRET, SECRET], [SECRET * 10_000], [""], SECRET],
        "ids": [[ID], [[1], [ID]], [[1], []], SECRET],
        "instances": [[{"inputs": SECRET}], [{"query": SECRET, "texts": [SECRET]}], [SECRET]],
    }
    if path == "/similarity":
        texts["inputs"] = [{"source_sentence": SECRET, "sentences": [SECRET]}, {"source_sentence": SECRET}]
        texts["parameters"] = [{"prompt_name": SECRET}]
    fields = [field.name for field in msgspec.structs.fields(POSTS[path])]
    base = {name: values[0] for name, values in texts.items() if name in fields}
    yield base
    yield base | {"truncate": False}
    for name in fields:
        for value in [*texts.get(name, ()), SECRET, [SECRET]]:
            yield base | {name: value}
    yield base | {SECRET: SECRET}


@pytest.fixture(params=["text", "json"])
def log(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Everything that anybody logs, as it would be written."""
    formatter = TextFormatter(color=False) if request.param == "text" else JsonFormatter(spans=True)
    monkeypatch.setattr(caplog.handler, "formatter", formatter)
    caplog.set_level(TRACE)
    caplog.set_level(logging.DEBUG, "uvicorn")
    return caplog


def model(name: str, engine: FakeEngine | None = None) -> Model:
    info = MODELS[name]
    spans: list[Span] = []
    engine = engine or FakeEngine(dimensions=info.dimensions)
    return fake_model(engine, info=info, tokenizer=fake_tokenizer(), tracer=Tracer(spans.append))


def is_clean(log: pytest.LogCaptureFixture) -> bool:
    return SECRET not in log.text and str(ID) not in log.text


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", POSTS)
def test_http(path: str, name: str, log: pytest.LogCaptureFixture) -> None:
    with Client(model(name), api_key=(SECRET,)) as client:
        statuses = {client.post(path, body, JSON | KEY).status for body in bodies(path)}
        statuses |= {client.request("POST", path, body, JSON | KEY).status for body in BROKEN}
        client.post(path, {"inputs": SECRET}, JSON | {"authorization": f"Bearer {SECRET}{SECRET}"})
        client.post(path, {"inputs": SECRET}, {"content-type": SECRET} | KEY)
        client.post(f"{path}/{SECRET}", {"inputs": SECRET}, JSON | KEY)
    assert {400, 422} <= statuses or path == "/vertex"
    assert 500 not in statuses
    assert any(record.name.startswith("text_embeddings_inference") for record in log.records)
    assert is_clean(log)


def test_engine_that_fails(log: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    engine.bad_ids = {0}  # that of every unknown word
    with Client(model("embedding", engine)) as client:
        assert client.post("/embed", {"inputs": SECRET}).status == 424
    assert "the engine failed" in log.text
    assert is_clean(log)


@pytest.mark.parametrize("name", MODELS)
def test_grpc(name: str, log: pytest.LogCaptureFixture) -> None:
    async def call(stub: Stub, name: str, request: Any) -> bool:
        try:
            await stub(name, request, metadata=[*KEY.items()])
        except grpc.aio.AioRpcError:
            return False
        return True

    async def test() -> None:
        answered = []
        async with calling(model(name), api_key=(SECRET,)) as stub:
            for path, declared in UNARY.items():
                for request in messages(declared.request):
                    answered.append(await call(stub, path.replace("/", "."), request))
        assert set(answered) == {True, False}

    run(test())
    assert is_clean(log)


def messages(kind: Any) -> Iterator[Any]:
    """Messages with the secret in every field that holds text."""
    fields = {field.name: field for field in kind.DESCRIPTOR.fields}
    texts: dict[str, Any] = {
        name: [SECRET, SECRET] if field.is_repeated else SECRET
        for name, field in fields.items()
        if field.type == field.TYPE_STRING
    }
    ids = {"ids": [ID]} if "ids" in fields else {}
    yield kind(**texts, **ids)
    for left_out in texts:
        yield kind(**{name: text for name, text in texts.items() if name != left_out}, **ids)
    if "truncation_direction" in fields:
        yield kind(**texts, truncation_direction=1)


def test_names_of_bodies_are_all_sent() -> None:
    """A field that is new is sent too."""
    for path, body in POSTS.items():
        sent = {name for sent in bodies(path) for name in json.loads(json.dumps(sent))}
        assert sent >= {field.name for field in msgspec.structs.fields(body)}
