"""Clients as they are installed from PyPI against real servers. Their results must agree with each other, with what
text-embeddings-inference 1.9.3 answered (MiniLM) and with the outputs of Transformers (fixtures).

`make test-clients` runs this with the clients' own environment; the server runs in .venv.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from numpy.typing import ArrayLike
from openai import AsyncOpenAI, AuthenticationError, OpenAI, UnprocessableEntityError

from bench.server import running

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "models"
RECORDED = ROOT / "tests" / "contract" / "recorded" / "embedding.jsonl"
KEY = "secret"
TOLERANCE = 1e-5
TEXT = "What is Deep Learning?"


def serve(model: Path) -> Iterator[str]:
    router = ROOT / ".venv" / "bin" / "text-embeddings-router"
    options = ["--dtype", "float32", "--api-key", KEY, "--prometheus-port", "0"]
    with running([str(router), "--model-id", str(model), *options]) as server:
        yield server.url


@pytest.fixture(scope="module")
def minilm() -> Iterator[str]:
    yield from serve(ROOT / ".venv" / "models" / "all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def bert() -> Iterator[str]:
    yield from serve(FIXTURES / "bert")


@pytest.fixture(scope="module")
def classifier() -> Iterator[str]:
    yield from serve(FIXTURES / "bert-classifier")


@pytest.fixture
def openai(minilm: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{minilm}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def recorded(name: str) -> Any:
    """What text-embeddings-inference 1.9.3 answered to the request of this name."""
    for line in RECORDED.read_text().splitlines():
        exchange = json.loads(line)
        if exchange["request"]["id"] == name:
            return exchange["response"]["json"]
    raise LookupError(name)


def expected(fixture: str) -> list[dict[str, Any]]:
    """Texts with the outputs that Transformers gave."""
    texts: list[dict[str, Any]] = json.loads((FIXTURES / fixture / "expected.json").read_text())["texts"]
    assert len(texts) >= 8
    return texts


def check_close(actual: ArrayLike, wanted: ArrayLike, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)
    assert np.shape(actual) == np.shape(wanted)


def unit(vector: ArrayLike) -> ArrayLike:
    return np.asarray(vector) / np.linalg.norm(vector)


def test_huggingface_hub_embeds(minilm: str, bert: str) -> None:
    client = InferenceClient(minilm, token=KEY)
    check_close(client.feature_extraction(TEXT), recorded("embed-single"))
    vectors = client.feature_extraction([TEXT, "I like pizza"], normalize=False, truncate=True, dimensions=16)
    assert vectors.shape == (2, 16)
    check_close(unit(vectors[0]), unit(recorded("embed-single")[0][:16]))

    client = InferenceClient(bert, token=KEY)
    for case in expected("bert"):
        check_close(client.feature_extraction(case["text"])[0], case["embedding"])
        check_close(client.feature_extraction(case["text"], normalize=False)[0], case["embedding_unnormalized"])


def test_huggingface_hub_compares_sentences(minilm: str) -> None:
    client = InferenceClient(f"{minilm}/similarity", token=KEY)
    sentences = ["What is Machine Learning?", "I like pizza"]
    scores = client.sentence_similarity(TEXT, sentences)
    check_close(scores, recorded("similarity"), tolerance=1e-4)  # its GELU is an approximation, see docs/differences.md
    vectors = client.feature_extraction([TEXT, *sentences], model=minilm)
    check_close(scores, vectors[1:] @ vectors[0])


def test_huggingface_hub_classifies(classifier: str) -> None:
    """The client takes the first element of a list of lists and finds TEI's flat list: the best label alone."""
    labels = json.loads((FIXTURES / "bert-classifier" / "config.json").read_text())["id2label"]
    client = InferenceClient(classifier, token=KEY)
    for case in expected("bert-classifier"):
        best: Any = client.text_classification(case["text"])
        assert best.label == labels[str(np.argmax(case["softmax"]))]
        check_close(best.score, max(case["softmax"]))


def test_huggingface_hub_shows_errors(minilm: str) -> None:
    with pytest.raises(HfHubHTTPError, match="dimensions") as caught:
        InferenceClient(minilm, token=KEY).feature_extraction(TEXT, dimensions=4096)
    assert caught.value.response.status_code == 422
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(minilm, token="wrong").feature_extraction(TEXT)


def test_openai_embeds(openai: OpenAI) -> None:
    answer = openai.embeddings.create(model="any", input=["a", "b"])  # on the wire as base64
    check_close(
        [item.embedding for item in answer.data], [item["embedding"] for item in recorded("openai-batch")["data"]]
    )
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 6


def test_openai_encodings_agree(openai: OpenAI, minilm: str) -> None:
    texts = [TEXT, "I like pizza"]
    answers = [
        openai.embeddings.create(model="any", input=texts),
        openai.embeddings.create(model="any", input=texts, encoding_format="float"),
    ]
    wanted = InferenceClient(minilm, token=KEY).feature_extraction(texts)
    for answer in answers:
        check_close([item.embedding for item in answer.data], wanted)
    raw: Any = openai.embeddings.create(model="any", input=TEXT, encoding_format="base64").data[0].embedding
    assert isinstance(raw, str)
    check_close(np.frombuffer(base64.b64decode(raw), "<f4"), wanted[0])


def test_openai_cuts_dimensions(openai: OpenAI) -> None:
    embedding = openai.embeddings.create(model="any", input="a", dimensions=16).data[0].embedding
    check_close(embedding, recorded("openai-dimensions")["data"][0]["embedding"])


def test_openai_sends_token_ids(openai: OpenAI) -> None:
    embedding = openai.embeddings.create(model="any", input=[101, 2054, 102]).data[0].embedding
    check_close(embedding, recorded("openai-ids")["data"][0]["embedding"])


def test_openai_shows_errors(openai: OpenAI, minilm: str) -> None:
    with pytest.raises(UnprocessableEntityError, match="dimensions") as caught:
        openai.embeddings.create(model="any", input="a", dimensions=4096)
    assert caught.value.body["message"] == recorded("openai-dimensions-4096")["message"]
    with pytest.raises(AuthenticationError):
        openai.with_options(api_key="wrong").embeddings.create(model="any", input="a")


def test_openai_asks_many_at_once(minilm: str) -> None:
    texts = [f"text {number}" for number in range(16)]

    async def embed_each() -> list[list[float]]:
        async with AsyncOpenAI(base_url=f"{minilm}/v1", api_key=KEY, max_retries=0) as client:
            answers = await asyncio.gather(*(client.embeddings.create(model="any", input=text) for text in texts))
        return [answer.data[0].embedding for answer in answers]

    check_close(asyncio.run(embed_each()), InferenceClient(minilm, token=KEY).feature_extraction(texts))


def test_langchain_embeds(bert: str) -> None:
    embeddings = HuggingFaceEndpointEmbeddings(huggingfacehub_api_token=KEY)
    # Its constructor no longer takes a URL as `model`, but its clients can be set.
    embeddings.client = InferenceClient(bert, token=KEY)
    # It puts blanks in place of line ends.
    cases = [case for case in expected("bert") if "\n" not in case["text"]]
    texts, wanted = [case["text"] for case in cases], [case["embedding"] for case in cases]
    check_close(embeddings.embed_documents(texts), wanted)
    check_close(embeddings.embed_query(texts[0]), wanted[0])

    async def embed() -> list[list[float]]:
        async with AsyncInferenceClient(bert, token=KEY) as embeddings.async_client:
            return await embeddings.aembed_documents(texts)

    check_close(asyncio.run(embed()), wanted)
