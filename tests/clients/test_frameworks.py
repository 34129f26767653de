"""Frameworks that bring a client for text-embeddings-inference or for OpenAI, and plain HTTP libraries."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import litellm
import pytest
import requests
from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from langchain_openai import OpenAIEmbeddings
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference as TextEmbeddingsRerank

from tests.clients.conftest import KEY
from tests.clients.reference import check_close, expected, expected_ranks

pytestmark = pytest.mark.clients

CASES = expected("bert")
TEXTS = [case["text"] for case in CASES]
VECTORS = [case["embedding"] for case in CASES]
RANKS = expected_ranks("bert-reranker")
JSON = {"authorization": f"Bearer {KEY}"}


def test_llama_index_embeds(bert: str) -> None:
    model = TextEmbeddingsInference(model_name="any", base_url=bert, auth_token=KEY, embed_batch_size=3)
    check_close(model.get_text_embedding_batch(TEXTS), VECTORS)
    check_close(model.get_query_embedding(TEXTS[0]), VECTORS[0])
    check_close(asyncio.run(model.aget_text_embedding_batch(TEXTS)), VECTORS)


def test_llama_index_reranks(reranker: str) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in RANKS["texts"]]
    ranker = TextEmbeddingsRerank(base_url=reranker, auth_token=f"Bearer {KEY}", top_n=len(nodes))
    found = ranker.postprocess_nodes(nodes, query_bundle=QueryBundle(RANKS["query"]))
    assert [node.text for node in found] == [RANKS["texts"][place] for place in RANKS["order"]]
    check_close([node.score for node in found], [RANKS["scores"][place] for place in RANKS["order"]])


def test_litellm_embeds(bert: str) -> None:
    for options in (
        {"model": "openai/any", "api_base": f"{bert}/v1"},
        {"model": "huggingface/any", "api_base": bert, "input_type": "embed"},
    ):
        answer = litellm.embedding(input=TEXTS, api_key=KEY, **options)
        check_close([item["embedding"] for item in answer.data], VECTORS)
    with pytest.raises(litellm.BadRequestError, match="batch size 40 > maximum allowed batch size 32"):
        litellm.embedding(model="openai/any", api_base=f"{bert}/v1", api_key=KEY, input=["a"] * 40)


def test_litellm_reranks(reranker: str) -> None:
    answer = litellm.rerank(
        model="huggingface/any",
        api_base=reranker,
        api_key=KEY,
        query=RANKS["query"],
        documents=RANKS["texts"],
        return_documents=True,
    )
    assert [found["index"] for found in answer.results] == RANKS["order"]
    check_close([found["relevance_score"] for found in answer.results], sorted(RANKS["scores"], reverse=True))
    assert [found["document"]["text"] for found in answer.results] == [RANKS["texts"][i] for i in RANKS["order"]]


def test_langchain_openai_embeds(bert: str) -> None:
    # check_embedding_ctx_length: it would send ids of OpenAI's tokenizer, which mean nothing to other models.
    model = OpenAIEmbeddings(model="any", base_url=f"{bert}/v1", api_key=KEY, check_embedding_ctx_length=False)
    check_close(model.embed_documents(TEXTS), VECTORS)
    check_close(asyncio.run(model.aembed_query(TEXTS[0])), VECTORS[0])


def test_chroma_embeds(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_KEY", KEY)
    embed = HuggingFaceEmbeddingServer(url=f"{bert}/embed", api_key_env_var="CHROMA_KEY")
    check_close(embed(TEXTS), VECTORS)


def test_haystack_embeds(bert: str) -> None:
    options: dict[str, Any] = {"api_base_url": f"{bert}/v1", "api_key": Secret.from_token(KEY), "model": "any"}
    check_close(OpenAITextEmbedder(**options).run(TEXTS[0])["embedding"], VECTORS[0])
    documents = [Document(content=text) for text in TEXTS]
    found = OpenAIDocumentEmbedder(**options, progress_bar=False, batch_size=3).run(documents)["documents"]
    check_close([document.embedding for document in found], VECTORS)


def test_aiohttp_asks_many_at_once(bert: str) -> None:
    async def ask() -> list[list[float]]:
        async with aiohttp.ClientSession(headers=JSON) as session:

            async def embed(text: str, **options: Any) -> list[float]:
                async with session.post(f"{bert}/embed", json={"inputs": text}, **options) as response:
                    assert response.status == 200
                    return (await response.json())[0]

            await asyncio.gather(*(embed(text, expect100=True) for text in TEXTS))
            return await asyncio.gather(*(embed(text) for text in TEXTS * 10))

    check_close(asyncio.run(ask()), VECTORS * 10)


def test_requests_sends_a_body_whose_length_it_does_not_know(bert: str) -> None:
    pieces = iter([b'{"inputs": ', b'"a"', b"}"])
    chunked = requests.post(
        f"{bert}/embed", data=pieces, headers=JSON | {"content-type": "application/json; charset=utf-8"}
    )
    whole = requests.post(f"{bert}/embed", json={"inputs": "a"}, headers=JSON)
    assert chunked.json() == whole.json()
