"""Spans of requests over HTTP and gRPC, and of the batches they were in."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.fakes import FakeEngine, fake_info, fake_model
from tests.server.client import JSON, Client
from tests.server.grpc.calling import calling, run, status
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.telemetry.logging import JsonFormatter
from text_embeddings_inference.telemetry.tracing import Span, SpanId, Tracer
from text_embeddings_inference.types import Kind

CALLER = SpanId(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
TRACEPARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
TIMES = {"total_time", "tokenization_time", "queue_time", "inference_time"}
PARTS = ["tokenization", "queue", "inference"]


class Spans(list[Span]):
    """What a tracer exported."""

    def tracer(self) -> Tracer:
        return Tracer(self.append)

    def named(self, name: str) -> list[Span]:
        return [span for span in self if span.name == name]

    def parts(self, of: Span) -> list[str]:
        return [span.name for span in self if span.parent == of.id]


@pytest.mark.parametrize(
    ("path", "name", "body", "kind"),
    [
        ("/embed", "embed", {"inputs": "1"}, Kind.EMBEDDING),
        ("/embed_all", "embed_all", {"inputs": ["1"]}, Kind.EMBEDDING),
        ("/v1/embeddings", "openai_embed", {"input": "1"}, Kind.EMBEDDING),
        ("/similarity", "similarity", {"inputs": {"source_sentence": "1", "sentences": ["2"]}}, Kind.EMBEDDING),
        ("/predict", "predict", {"inputs": "1"}, Kind.CLASSIFIER),
        ("/rerank", "rerank", {"query": "1", "texts": ["2"]}, Kind.RERANKER),
        ("/vertex", "embed", {"instances": [{"inputs": "1"}]}, Kind.EMBEDDING),
    ],
)
def test_request(path: str, name: str, body: Any, kind: Kind) -> None:
    spans = Spans()
    with Client(fake_model(info=fake_info(kind), tracer=spans.tracer())) as client:
        assert client.post(path, body, JSON | TRACEPARENT).status == 200
        assert client.post(path, body).status == 200
    called, other = spans.named(name)
    assert (called.parent, called.id.trace) == (CALLER, CALLER.trace)
    assert other.parent is None
    assert other.id.trace != CALLER.trace
    assert set(called.attributes) == TIMES | {"compute_chars", "compute_tokens"}
    assert str(called.attributes["total_time"]).endswith(("ns", "µs", "ms", "s"))
    assert spans.parts(called) == PARTS
    links = {span.link for span in spans if span.link}
    assert links == {batch.id for batch in spans.named("batch")}
    assert len(links) == 2


@pytest.mark.parametrize("path", ["/tokenize", "/decode"])
def test_requests_without_a_batch(path: str) -> None:
    spans = Spans()
    with Client(fake_model(tracer=spans.tracer())) as client:
        client.post(path, {"inputs": "1"} if path == "/tokenize" else {"ids": [1]}, JSON | TRACEPARENT)
    (span,) = spans
    assert (span.name, span.parent, dict(span.attributes)) == (path[1:], CALLER, {})


def test_requests_of_one_batch_link_to_its_span() -> None:
    spans, engine = Spans(), FakeEngine()
    engine.hold()
    inputs = {"inputs": ["1", "2"]}

    async def three(client: Client) -> None:
        answers = [asyncio.create_task(client.answer("POST", "/embed", [json.dumps(inputs).encode()])) for _ in "123"]
        await asyncio.get_running_loop().run_in_executor(None, engine.wait_for, 1)
        engine.let()
        await asyncio.gather(*answers)

    with Client(fake_model(engine, tracer=spans.tracer())) as client:
        client.run(three(client))
    assert sum(int(batch.attributes["inputs"]) for batch in spans.named("batch")) == 6
    assert {span.link for span in spans.named("inference")} == {batch.id for batch in spans.named("batch")}
    for part in spans.named("inference"):
        (batch,) = (batch for batch in spans.named("batch") if batch.id == part.link)
        assert (part.start, part.end) == pytest.approx((batch.start, batch.end), abs=10**6)


def test_failures() -> None:
    spans, engine = Spans(), FakeEngine()
    engine.bad_ids = {7}
    with Client(fake_model(engine, tracer=spans.tracer())) as client:
        assert client.post("/embed", {"inputs": ""}).status == 400
        assert client.post("/embed", {"inputs": "7"}).status == 424
        assert client.post("/embed", {"inputs": None}, JSON | TRACEPARENT).status == 422
    empty, broken = spans.named("embed")
    assert (empty.problem, spans.parts(empty)) == ("EmptyInputError", [])
    assert (broken.problem, spans.parts(broken)) == ("InferenceError", ["tokenization"])
    assert [batch.problem for batch in spans.named("batch")] == ["RuntimeError"]


def test_grpc() -> None:
    spans = Spans()

    async def test() -> None:
        async with calling(fake_model(tracer=spans.tracer()), api_key=("key",)) as stub:
            metadata = [*TRACEPARENT.items(), ("authorization", "Bearer key")]
            await stub("Embed.Embed", tei.EmbedRequest(inputs="1"), metadata=metadata)
            requests = [tei.EmbedAllRequest(inputs=text) for text in ("1", "2")]
            async for _ in stub.stream("Embed.EmbedAllStream", requests, metadata=metadata):
                pass
            await stub("Tokenize.Tokenize", tei.EncodeRequest(inputs="1"), metadata=metadata[1:])
            await status(stub("Embed.Embed", tei.EmbedRequest(inputs="1"), metadata=metadata[:1]))

    run(test())
    requests = [span for span in spans if span.name not in ("batch", *PARTS)]
    assert [(span.name, span.parent) for span in requests] == [
        ("embed", CALLER),
        ("embed_all", CALLER),
        ("embed_all", CALLER),
        ("tokenize", None),
    ]
    assert all(spans.parts(span) == PARTS for span in requests[:3])


def test_rerank_stream_is_one_request() -> None:
    spans = Spans()

    async def test() -> None:
        async with calling(fake_model(info=fake_info(Kind.RERANKER), tracer=spans.tracer())) as stub:
            items = [tei.RerankStreamRequest(query="1", text=text) for text in ("1", "2")]
            await stub.collect("Rerank.RerankStream", items)

    run(test())
    (span,) = spans.named("rerank_stream")
    assert sorted(spans.parts(span)) == sorted(PARTS * 2)


def test_log_lines_tell_the_trace(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = Spans()
    monkeypatch.setattr(caplog.handler, "formatter", JsonFormatter(spans=False))
    with caplog.at_level(logging.INFO), Client(fake_model(tracer=spans.tracer())) as client:
        client.post("/embed", {"inputs": "1"}, JSON | TRACEPARENT)
        logging.getLogger("text_embeddings_inference").info("on its own")
    told, untold = (json.loads(line) for line in caplog.text.splitlines())
    (span,) = spans.named("embed")
    assert told["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert int(told["span_id"], 16) == span.id.span
    assert "trace_id" not in untold
