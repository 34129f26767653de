"""Which calls count as requests, and as what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import fake_info, fake_model
from tests.server.grpc.calling import Stub, calling, run, status
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import Kind, ModelInfo, Pooling

EMBEDDING = fake_info()
SPLADE = fake_info(pooling=Pooling.SPLADE)
CLASSIFIER = fake_info(Kind.CLASSIFIER)
RERANKER = fake_info(Kind.RERANKER)

EMBED = tei.EmbedRequest(inputs="1")
TEXTS = tei.RerankRequest(query="1", texts=["2", "3"])
SINGLE = {'te_request_count{method="single"}': 1, 'te_request_success{method="single"}': 1}
BATCH = {'te_request_count{method="batch"}': 1, 'te_request_success{method="batch"}': 1}
TRIED = {'te_request_count{method="batch"}': 1}


def failed(kind: str, times: int = 1) -> dict[str, int]:
    return {f'te_request_failure{{err="{kind}"}}': times}


async def unary(stub: Stub, name: str, request: Any) -> None:
    await stub(name, request)


async def refused(stub: Stub, name: str, request: Any) -> None:
    await status(stub(name, request))


async def stream(stub: Stub, name: str, request: Any) -> None:
    async for _ in stub.stream(name, [request, request]):
        pass


async def collected(stub: Stub, name: str, request: Any) -> None:
    await stub.collect(name, [request, request])


async def nothing_collected(stub: Stub, name: str, request: Any) -> None:
    await status(stub.collect(name, []))


@pytest.mark.parametrize(
    ("call", "name", "request_", "info", "timed", "counted"),
    [
        (unary, "Embed.Embed", EMBED, EMBEDDING, 1, SINGLE),
        (unary, "Embed.EmbedSparse", tei.EmbedSparseRequest(inputs="1"), SPLADE, 1, SINGLE),
        (unary, "Embed.EmbedAll", tei.EmbedAllRequest(inputs="1"), EMBEDDING, 1, SINGLE),
        (unary, "Predict.Predict", tei.PredictRequest(inputs="1"), CLASSIFIER, 1, SINGLE),
        (unary, "Predict.PredictPair", tei.PredictPairRequest(inputs=["1", "2"]), CLASSIFIER, 1, SINGLE),
        (unary, "Rerank.Rerank", TEXTS, RERANKER, 1, BATCH),
        (collected, "Rerank.RerankStream", tei.RerankStreamRequest(query="1", text="2"), RERANKER, 1, BATCH),
        (stream, "Embed.EmbedStream", EMBED, EMBEDDING, 2, {}),
        (stream, "Embed.EmbedAllStream", tei.EmbedAllRequest(inputs="1"), EMBEDDING, 2, {}),
        (stream, "Predict.PredictStream", tei.PredictRequest(inputs="1"), CLASSIFIER, 2, {}),
        (unary, "Tokenize.Tokenize", tei.EncodeRequest(inputs="1"), EMBEDDING, 0, {}),
        (unary, "Tokenize.Decode", tei.DecodeRequest(ids=[1]), EMBEDDING, 0, {}),
        (unary, "Info.Info", tei.InfoRequest(), EMBEDDING, 0, {}),
        (refused, "Rerank.Rerank", TEXTS, CLASSIFIER, 0, failed("model_type")),
        (refused, "Rerank.Rerank", tei.RerankRequest(query="1"), RERANKER, 0, failed("validation")),
        (
            *(refused, "Rerank.Rerank", tei.RerankRequest(query="1", texts=["2"] * 4), RERANKER, 0),
            TRIED | failed("batch_size"),
        ),
        (nothing_collected, "Rerank.RerankStream", None, RERANKER, 0, TRIED | failed("validation")),
        (nothing_collected, "Rerank.RerankStream", None, EMBEDDING, 0, failed("model_type")),
    ],
)
def test_counts(
    call: Callable[..., Any], name: str, request_: Any, info: ModelInfo, timed: int, counted: dict[str, int]
) -> None:
    model = fake_model(info=info, limits=Limits(max_client_batch_size=3))

    async def test() -> None:
        async with calling(model) as stub:
            await call(stub, name, request_)

    run(test())
    lines = dict(line.rsplit(" ", 1) for line in model.metrics.render().decode().splitlines() if " " in line)
    prefixes = ("te_request_count{", "te_request_success{", "te_request_failure{")
    assert {name: int(value) for name, value in lines.items() if name.startswith(prefixes)} == counted
    assert int(lines.get("te_request_duration_count", 0)) == timed
