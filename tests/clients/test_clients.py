"""Clients as they are installed from PyPI against real servers. Their results must agree with each other, with what
text-embeddings-inference 1.9.3 answered (MiniLM) and with the outputs of Transformers (fixtures).

`make test-clients` runs this with the clients' own environment; the server runs in .venv.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from openai import AsyncOpenAI, OpenAI

from tests.clients.conftest import FIXTURES, KEY
from tests.clients.reference import check_close, expected, recorded, unit

pytestmark = pytest.mark.clients

TEXT = "What is Deep Learning?"


@pytest.fixture
def openai(minilm: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{minilm}/v1", api_key=KEY, max_retries=0) as client:
        yield client


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


def test_huggingface_hub_puts_prompts_before_texts(prompted: str) -> None:
    client = InferenceClient(prompted, token=KEY)
    written = client.feature_extraction(["query: a", "passage: a"])
    for name, vector in zip(("query", "passage"), written, strict=True):
        check_close(client.feature_extraction("a", prompt_name=name)[0], vector)


def test_huggingface_hub_cuts_on_either_side(bert: str) -> None:
    client = InferenceClient(bert, token=KEY)
    texts = ["a " * 100 + "b", "a " * 100]
    for side, same in (("left", False), ("right", True)):
        vectors = client.feature_extraction(texts, truncate=True, truncation_direction=side)
        assert np.allclose(*vectors, rtol=0, atol=1e-5) is same


def test_huggingface_hub_asks_many_at_once(bert: str, classifier: str) -> None:
    cases = expected("bert")

    async def ask() -> tuple[list[Any], Any]:
        async with AsyncInferenceClient(bert, token=KEY) as client:
            vectors = await asyncio.gather(*(client.feature_extraction(case["text"]) for case in cases * 10))
        async with AsyncInferenceClient(classifier, token=KEY) as client:
            return vectors, await client.text_classification(cases[0]["text"])

    vectors, best = asyncio.run(ask())
    check_close([vector[0] for vector in vectors], [case["embedding"] for case in cases * 10])
    assert best == InferenceClient(classifier, token=KEY).text_classification(cases[0]["text"])


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


def test_openai_asks_many_at_once(minilm: str) -> None:
    texts = [f"text {number}" for number in range(16)]

    async def embed_each(**options: Any) -> list[Any]:
        async with AsyncOpenAI(base_url=f"{minilm}/v1", api_key=KEY, max_retries=0) as client:
            calls = (client.embeddings.create(model="any", input=text, **options) for text in texts)
            return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

    cut = [
        np.frombuffer(base64.b64decode(text), "<f4")
        for text in asyncio.run(embed_each(dimensions=16, encoding_format="base64"))
    ]
    check_close(cut, asyncio.run(embed_each(dimensions=16, encoding_format="float")))
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
