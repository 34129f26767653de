"""What a call ends with that is not answered: code and message."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError

from tests.fakes import FakeEngine, fake_info, fake_model
from tests.server.grpc.calling import Stub, calling, run, status
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.grpc import service
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.server.grpc.service import MAX_MESSAGE
from text_embeddings_inference.server.grpc.statuses import RefusedError
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.tokenization.tokenizer import MOST_IDS
from text_embeddings_inference.types import Kind, Pooling

INVALID, FAILED = "INVALID_ARGUMENT", "FAILED_PRECONDITION"
LONG = "1 " * 100
NO_DIRECTION = "`truncation_direction` must be 0 (right) or 1 (left). Given: 7"


def refused(request: Callable[[Stub], Any], model: Model | None = None, **settings: Any) -> tuple[str, str]:
    async def call() -> tuple[str, str]:
        async with calling(model, **settings) as stub:
            return await status(request(stub))

    return run(call())


def embed(**fields: Any) -> Callable[[Stub], Awaitable[Any]]:
    return lambda stub: stub("Embed.Embed", tei.EmbedRequest(**fields))


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (embed(), INVALID, "Input validation error: `inputs` cannot be empty"),
        (embed(inputs=LONG), INVALID, "Input validation error: `inputs` must have less than 16 tokens. Given: 100"),
        (embed(inputs="1", dimensions=0), INVALID, "Input validation error: `dimensions` should be positive"),
        (embed(inputs="1", truncation_direction=7), INVALID, NO_DIRECTION),
        (
            lambda stub: stub("Embed.EmbedSparse", tei.EmbedSparseRequest(inputs="1")),
            FAILED,
            "Backend error: Model is not an embedding model with SPLADE pooling",
        ),
        (
            lambda stub: stub("Predict.Predict", tei.PredictRequest(inputs="1")),
            FAILED,
            "Backend error: Model is not a classifier model",
        ),
        (
            lambda stub: stub("Predict.PredictPair", tei.PredictPairRequest(inputs=["1", "2", "3"])),
            INVALID,
            "`inputs` must have a single or two elements. Given: 3",
        ),
        (lambda stub: stub("Rerank.Rerank", tei.RerankRequest(query="1")), INVALID, "`texts` cannot be empty"),
        (
            lambda stub: stub("Rerank.Rerank", tei.RerankRequest(query="1", texts=["2"])),
            FAILED,
            "model is not a classifier model",
        ),
        (
            lambda stub: stub.collect("Rerank.RerankStream", iter([])),
            FAILED,
            "model is not a classifier model",
        ),
        (
            lambda stub: stub("Tokenize.Decode", tei.DecodeRequest()),
            INVALID,
            "Input validation error: `input_ids` cannot be empty",
        ),
    ],
    ids=str,
)
def test_refused(request_: Callable[[Stub], Any], code: str, message: str) -> None:
    assert refused(request_) == (code, message)


def test_unknown_prompt_names_those_there_are() -> None:
    code, message = refused(embed(inputs="1", prompt_name="x"))
    assert code == INVALID
    assert "`x`" in message or "'x'" in message or '"x"' in message
    assert "query" in message


def test_what_a_reranker_refuses() -> None:
    def model() -> Model:
        return fake_model(info=fake_info(Kind.RERANKER))

    def rerank(texts: list[str]) -> Callable[[Stub], Any]:
        return lambda stub: stub("Rerank.Rerank", tei.RerankRequest(query="1", texts=texts))

    assert refused(rerank(["2"] * 33), model()) == (INVALID, "batch size 33 > maximum allowed batch size 32")
    assert refused(lambda stub: stub.collect("Rerank.RerankStream", iter([])), model()) == (
        INVALID,
        "`texts` cannot be empty",
    )
    assert refused(embed(inputs="1"), model())[0] == FAILED


def test_a_classifier_is_no_reranker() -> None:
    model = fake_model(info=fake_info(Kind.CLASSIFIER))
    found = refused(lambda stub: stub("Rerank.Rerank", tei.RerankRequest(query="1", texts=["2"])), model)
    assert found == (FAILED, "model is not a re-ranker model")


def test_splade_models_have_no_token_vectors() -> None:
    model = fake_model(info=fake_info(pooling=Pooling.SPLADE))
    found = refused(lambda stub: stub("Embed.EmbedAll", tei.EmbedAllRequest(inputs="1")), model)
    assert found == (FAILED, "Backend error: `embed_all` is not available for SPLADE models")


def test_an_engine_that_fails() -> None:
    engine = FakeEngine()
    engine.bad_ids = {7}
    code, message = refused(embed(inputs="7"), fake_model(engine))
    assert code == FAILED
    assert message == "Backend error: the engine failed on this input: see the server's log"


def test_overloaded() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine, limits=Limits(max_concurrent_requests=1))) as stub:
            engine.hold()
            first = stub("Embed.Embed", tei.EmbedRequest(inputs="1"))
            while not engine.batches:
                await stub("Info.Info", tei.InfoRequest())
            found = await status(stub("Embed.Embed", tei.EmbedRequest(inputs="2")))
            engine.let()
            assert list((await first).embeddings)
            assert found == ("RESOURCE_EXHAUSTED", "Model is overloaded")

    run(test())


@pytest.mark.parametrize("key", [None, "Bearer wrong", "one", "Bearer  one"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_without_a_key(key: str | None, stream: bool) -> None:
    metadata = () if key is None else (("authorization", key),)

    async def call() -> tuple[str, str]:
        async with calling(api_key=("one", "two")) as stub:
            request = tei.EmbedRequest(inputs="1")
            if not stream:
                return await status(stub("Embed.Embed", request, metadata=metadata))
            return await status(stub.stream("Embed.EmbedStream", iter([request]), metadata=metadata).read())

    assert run(call()) == ("UNAUTHENTICATED", "No valid auth token")


@pytest.mark.parametrize("key", ["one", "two"])
def test_a_call_with_a_key(key: str) -> None:
    async def call() -> Any:
        async with calling(api_key=("one", "two")) as stub:
            return await stub("Info.Info", tei.InfoRequest(), metadata=(("authorization", f"Bearer {key}"),))

    assert run(call()).model_id == "fake/model"


@pytest.mark.parametrize("path", ["/tei.v1.Embed/Nothing", "/tei.v2.Embed/Embed", "/nothing"])
def test_unknown_methods(path: str) -> None:
    async def call() -> tuple[str, str]:
        async with calling() as stub:
            return await status(stub.channel.unary_unary(path)(b""))

    assert run(call()) == ("UNIMPLEMENTED", "")


def raw(content: bytes) -> tuple[str, str]:
    async def call() -> tuple[str, str]:
        async with calling() as stub:
            return await status(stub.channel.unary_unary("/tei.v1.Embed/Embed")(content))

    return run(call())


def test_messages_that_are_none() -> None:
    code, message = raw(b"\xff\xff\xff")
    assert code == "INTERNAL"
    assert message.startswith("failed to decode Protobuf message")


def test_messages_that_are_too_long() -> None:
    found = MAX_MESSAGE + 1
    message = f"Error, message length too large: found {found} bytes, the limit is: {MAX_MESSAGE} bytes"
    assert raw(b"\x00" * found) == ("OUT_OF_RANGE", message)


@pytest.mark.parametrize(
    "call",
    [
        lambda stub, request: stub("Tokenize.Decode", request),
        lambda stub, request: stub.stream("Tokenize.DecodeStream", iter([request])).read(),
    ],
)
def test_more_ids_than_are_decoded_in_little_time(call: Callable[[Stub, Any], Any]) -> None:
    request = tei.DecodeRequest(ids=[1] * (MAX_MESSAGE - 100))
    message = f"Input validation error: `input_ids` must have at most {MOST_IDS} token ids"
    assert refused(lambda stub: call(stub, request)) == (INVALID, message)


def test_more_texts_than_a_batch_may_have() -> None:
    request = tei.RerankRequest(query="1", texts=["2"] * 1_000_000)
    message = "batch size 1000000 > maximum allowed batch size 32"
    model = fake_model(info=fake_info(Kind.RERANKER))
    assert refused(lambda stub: stub("Rerank.Rerank", request), model) == (INVALID, message)


def test_what_fails_does_not_keep_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """However seldom cycles are collected."""
    requests = []

    class Request:
        """That can be referred to weakly."""

    def fail(content: bytes, message: Any) -> None:
        request = Request()
        requests.append(weakref.ref(request))
        try:
            raise DecodeError
        except DecodeError as error:
            raise RefusedError("INTERNAL", "not decoded") from error

    monkeypatch.setattr(service, "decode", fail)

    async def test() -> None:
        async with calling() as stub:
            for _ in range(3):
                assert await status(stub("Embed.Embed", tei.EmbedRequest())) == ("INTERNAL", "not decoded")
            assert [request() for request in requests[:-1]] == [None] * 2  # the last call may not have ended here

    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_a_call_that_is_cancelled_leaves_the_queue() -> None:
    engine = FakeEngine()

    async def test() -> None:
        model = fake_model(engine)
        async with calling(model) as stub:
            engine.hold()
            running = stub("Embed.Embed", tei.EmbedRequest(inputs="1"))
            while not engine.batches:
                await stub("Info.Info", tei.InfoRequest())
            waiting = [stub("Embed.Embed", tei.EmbedRequest(inputs="2")) for _ in range(3)]
            while model.permits.free > 508:
                await stub("Info.Info", tei.InfoRequest())
            for call in waiting:
                call.cancel()
            while model.permits.free < 511:
                await stub("Info.Info", tei.InfoRequest())
            engine.let()
            assert list((await running).embeddings)
            assert [batch.inputs for batch in engine.batches] == [[[1]]]

    run(test())


def test_a_deadline_ends_the_work() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine)) as stub:
            engine.hold()
            path = "/tei.v1.Embed/Embed"
            call = stub.channel.unary_unary(path)(tei.EmbedRequest(inputs="1").SerializeToString(), timeout=0.05)
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call
            assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            engine.let()

    run(test())


@pytest.mark.parametrize(
    "request_",
    [
        lambda stub: stub("Embed.EmbedSparse", tei.EmbedSparseRequest(inputs="1", truncation_direction=7)),
        lambda stub: stub("Embed.EmbedAll", tei.EmbedAllRequest(inputs="1", truncation_direction=7)),
        lambda stub: stub("Predict.Predict", tei.PredictRequest(inputs="1", truncation_direction=7)),
        lambda stub: stub("Predict.PredictPair", tei.PredictPairRequest(inputs=["1"], truncation_direction=7)),
    ],
)
def test_directions_that_are_none(request_: Callable[[Stub], Any]) -> None:
    assert refused(request_) == (INVALID, NO_DIRECTION)


def test_directions_that_are_none_of_a_reranker() -> None:
    item = tei.RerankStreamRequest(query="1", text="2", truncation_direction=7)
    calls: list[Callable[[Stub], Any]] = [
        lambda stub: stub("Rerank.Rerank", tei.RerankRequest(query="1", texts=["2"], truncation_direction=7)),
        lambda stub: stub.collect("Rerank.RerankStream", iter([item])),
    ]
    for call in calls:
        assert refused(call, fake_model(info=fake_info(Kind.RERANKER))) == (INVALID, NO_DIRECTION)
