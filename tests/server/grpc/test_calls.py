"""Every gRPC call answers like its HTTP twin: the same model, the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.loaded import loaded_model
from tests.oracle.expected import MODELS
from tests.server.client import JSON, Client
from tests.server.grpc.calling import calling, run
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Pooling

TEXTS = ("What is deep learning?", "naïve café", "a " * 200)
COSTS = ("x-compute-type", "x-compute-time", "x-compute-characters", "x-compute-tokens", "x-total-time")
COSTS += ("x-tokenization-time", "x-queue-time", "x-inference-time")


def load(name: str, **options: Any) -> Model:
    settings = Settings.of(model_id=str(MODELS / name), dtype="float32", threads=1, **options)
    model = loaded_model(settings)
    model.warm_up()
    return model


def numbers(value: Any) -> list[float]:
    """All numbers in an answer, in the order in which they stand."""
    if isinstance(value, dict):
        return [number for _, item in sorted(value.items()) for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


@dataclass(frozen=True)
class Twin:
    """The same request by both protocols; read: the gRPC answer in the form of the HTTP one."""

    model: str
    call: str
    request: Callable[[str], Any]
    route: str
    body: Callable[[str], Any]
    read: Callable[[Any], Any]
    options: tuple[tuple[str, Any], ...] = ()


def entries(answer: Any) -> list[Any]:
    return [{"index": entry.index, "value": entry.value} for entry in answer.sparse_embeddings]


def predictions(answer: Any) -> list[Any]:
    return [{"score": found.score, "label": found.label} for found in answer.predictions]


def rank(found: Any) -> dict[str, Any]:
    return {"index": found.index, "score": found.score} | ({"text": found.text} if found.HasField("text") else {})


TWINS = {
    "Embed": Twin(
        "bert",
        "Embed.Embed",
        lambda text: tei.EmbedRequest(inputs=text, truncate=True),
        "/embed",
        lambda text: {"inputs": text},
        lambda answer: [list(answer.embeddings)],
    ),
    "Embed, all fields": Twin(
        "xlm-roberta",
        "Embed.Embed",
        lambda text: tei.EmbedRequest(
            inputs=text,
            truncate=True,
            normalize=False,
            truncation_direction=tei.TRUNCATION_DIRECTION_LEFT,
            prompt_name="query",
            dimensions=7,
        ),
        "/embed",
        lambda text: {
            "inputs": text,
            "normalize": False,
            "truncation_direction": "Left",
            "prompt_name": "query",
            "dimensions": 7,
        },
        lambda answer: [list(answer.embeddings)],
    ),
    "EmbedAll": Twin(
        "bert",
        "Embed.EmbedAll",
        lambda text: tei.EmbedAllRequest(inputs=text, truncate=True),
        "/embed_all",
        lambda text: {"inputs": text},
        lambda answer: [[list(token.embeddings) for token in answer.token_embeddings]],
    ),
    "EmbedSparse": Twin(
        "bert-splade",
        "Embed.EmbedSparse",
        lambda text: tei.EmbedSparseRequest(inputs=text, truncate=True),
        "/embed_sparse",
        lambda text: {"inputs": text},
        lambda answer: [entries(answer)],
        (("pooling", Pooling.SPLADE),),
    ),
    "Predict": Twin(
        "bert-classifier",
        "Predict.Predict",
        lambda text: tei.PredictRequest(inputs=text, truncate=True),
        "/predict",
        lambda text: {"inputs": text},
        predictions,
    ),
    "Predict, raw": Twin(
        "bert-classifier",
        "Predict.Predict",
        lambda text: tei.PredictRequest(inputs=text, truncate=True, raw_scores=True),
        "/predict",
        lambda text: {"inputs": text, "raw_scores": True},
        predictions,
    ),
    "PredictPair": Twin(
        "bert-reranker",
        "Predict.PredictPair",
        lambda text: tei.PredictPairRequest(inputs=["a query", text], truncate=True),
        "/predict",
        lambda text: {"inputs": ["a query", text]},
        predictions,
    ),
    "PredictPair of one": Twin(
        "bert-reranker",
        "Predict.PredictPair",
        lambda text: tei.PredictPairRequest(inputs=[text], truncate=True),
        "/predict",
        lambda text: {"inputs": text},
        predictions,
    ),
    "Rerank": Twin(
        "bert-reranker",
        "Rerank.Rerank",
        lambda text: tei.RerankRequest(query=text, texts=["one", "two", "three"], truncate=True, return_text=True),
        "/rerank",
        lambda text: {"query": text, "texts": ["one", "two", "three"], "return_text": True},
        lambda answer: [rank(found) for found in answer.ranks],
    ),
    "Rerank by late interaction": Twin(
        "colbert",
        "Rerank.Rerank",
        lambda text: tei.RerankRequest(query=text, texts=["one", "two", "three"], truncate=True),
        "/rerank",
        lambda text: {"query": text, "texts": ["one", "two", "three"]},
        lambda answer: [rank(found) for found in answer.ranks],
    ),
    "Tokenize": Twin(
        "bert",
        "Tokenize.Tokenize",
        lambda text: tei.EncodeRequest(inputs=text, add_special_tokens=True),
        "/tokenize",
        lambda text: {"inputs": text},
        lambda answer: [
            [
                {
                    "id": token.id,
                    "text": token.text,
                    "special": token.special,
                    "start": token.start if token.HasField("start") else None,
                    "stop": token.stop if token.HasField("stop") else None,
                }
                for token in answer.tokens
            ]
        ],
    ),
    "Decode": Twin(
        "bert",
        "Tokenize.Decode",
        lambda text: tei.DecodeRequest(ids=range(5, 6 + len(text) % 50), skip_special_tokens=True),
        "/decode",
        lambda text: {"ids": list(range(5, 6 + len(text) % 50))},
        lambda answer: [answer.text],
    ),
}


def without_numbers(value: Any) -> Any:
    """The answer with all floats made equal: its shape, names, texts and order."""
    if isinstance(value, dict):
        return {name: without_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_numbers(item) for item in value]
    return 0.0 if isinstance(value, float) else value


@pytest.mark.parametrize("text", TEXTS, ids=["ascii", "unicode", "long"])
@pytest.mark.parametrize("name", TWINS)
def test_twins(name: str, text: str) -> None:
    twin = TWINS[name]
    with Client(load(twin.model, **dict(twin.options))) as client:
        response = client.post(twin.route, twin.body(text), JSON)
    assert response.status == 200

    async def call() -> tuple[Any, dict[str, str]]:
        async with calling(load(twin.model, **dict(twin.options))) as stub:
            called = stub(twin.call, twin.request(text))
            headers = dict(await called.initial_metadata())
            return await called, headers

    answer, headers = run(call())
    found = twin.read(answer)
    assert without_numbers(found) == without_numbers(response.json)
    assert np.allclose(numbers(found), numbers(response.json), atol=1e-6, rtol=0)
    if twin.call.startswith("Tokenize"):
        assert not set(COSTS) & set(headers)
        return
    assert set(COSTS) <= set(headers)
    for cost in ("x-compute-characters", "x-compute-tokens"):
        assert headers[cost] == response.headers[cost]
    assert answer.metadata.compute_tokens == int(headers["x-compute-tokens"])
    assert answer.metadata.compute_chars == int(headers["x-compute-characters"])
    parts = answer.metadata.tokenization_time_ns + answer.metadata.queue_time_ns + answer.metadata.inference_time_ns
    assert 0 < parts <= answer.metadata.total_time_ns


@pytest.mark.parametrize("raw", [False, True])
def test_a_stream_to_a_model_for_late_interaction(raw: bool) -> None:
    texts, how = ["one", "two", "three"], {"query": "a query", "truncate": True, "raw_scores": raw}

    async def call() -> Any:
        async with calling(load("colbert")) as stub:
            stream = iter([tei.RerankStreamRequest(text=text, **how) for text in texts])
            streamed = await stub.collect("Rerank.RerankStream", stream)
            return streamed, await stub("Rerank.Rerank", tei.RerankRequest(texts=texts, **how))

    streamed, together = run(call())
    assert [found.index for found in streamed.ranks] == [found.index for found in together.ranks]
    assert [found.score for found in streamed.ranks] == pytest.approx([found.score for found in together.ranks])
    assert (max(found.score for found in streamed.ranks) > 1) == raw


def test_info() -> None:
    async def call() -> Any:
        async with calling(load("bert-reranker")) as stub:
            return await stub("Info.Info", tei.InfoRequest())

    with Client(load("bert-reranker")) as client:
        info = client.get("/info").json
    answer = run(call())
    same = ("model_id", "model_dtype", "max_concurrent_requests", "max_input_length", "max_batch_tokens", "version")
    assert {name: getattr(answer, name) for name in same} == {name: info[name] for name in same}
    assert answer.max_client_batch_size == info["max_client_batch_size"]
    assert answer.model_type == tei.MODEL_TYPE_RERANKER
    assert not any(answer.HasField(name) for name in ("sha", "docker_label", "model_sha", "max_batch_requests"))
