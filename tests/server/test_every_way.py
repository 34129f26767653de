"""One text, one answer: whichever route it comes by, alone or with others, on an idle server, on a busy one, or in
process. Real checkpoints on OpenVINO in float32."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loaded import loaded_model
from tests.server.client import Client
from text_embeddings_inference import load
from text_embeddings_inference.inference.results import Prediction, Sparse
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Float32Array, Pooling

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
TOLERANCE = 1e-5
WORDS = (
    *("the", "function", "returns", "a", "list", "of", "names", "—", "schöne", "Grüße,", "東京", "where"),
    *("each", "value", "is", "None", "unless", "module.py", "says", "so"),
)


def ragged(count: int, seed: int) -> list[str]:
    """Texts of 1 to 16 words, then some that are too long for some models, and one that is for all."""
    random_ = random.Random(seed)
    lengths = [random_.randint(1, 16) for _ in range(count // 2)] + list(range(16, 15 + count - count // 2)) + [100]
    return [" ".join(random_.choices(WORDS, k=length)) for length in lengths]


TEXTS = ragged(24, seed=1)
CROWD = ragged(100, seed=2)
"""What keeps the server busy meanwhile."""


@contextmanager
def served(name: str, streams: int = 1, pooling: Pooling | None = None) -> Iterator[Client]:
    settings = Settings.of(model_id=str(MODELS / name), dtype="float32", streams=streams, threads=2, pooling=pooling)
    with Client(loaded_model(settings), settings) as client:
        yield client


def in_process(name: str, pooling: Pooling | None = None) -> Any:
    return load(MODELS / name, dtype="float32", threads=2, streams=1, pooling=pooling)


def ask(client: Client, path: str, *bodies: Any) -> list[Any]:
    """The answers to requests that come one after another."""
    return client.run(_in_turn(client, path, bodies))


async def _in_turn(client: Client, path: str, bodies: Sequence[Any]) -> list[Any]:
    return [await _answer(client, path, body) for body in bodies]


def ask_at_once(client: Client, path: str, bodies: Sequence[Any], crowd: Sequence[Any]) -> list[Any]:
    """The answers to requests that all come at the same time, and with them those of the crowd."""

    async def both() -> list[Any]:
        calls = [_answer(client, path, body) for body in (*crowd[::2], *bodies, *crowd[1::2])]
        answers = await asyncio.gather(*calls)
        first = len(crowd[::2])
        return answers[first : first + len(bodies)]

    return client.run(both())


async def _answer(client: Client, path: str, body: Any) -> Any:
    response = await client.answer("POST", path, [json.dumps(body).encode()])
    assert response.status == 200, response.body
    return response.json


def same(found: Any, wanted: Float32Array) -> None:
    np.testing.assert_allclose(np.array(found, np.float32), wanted, rtol=0, atol=TOLERANCE)


def ids_of(client: Client, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of the first texts that need not be cut; of ids, the last special token would be cut too."""
    (tokens,) = ask(client, "/tokenize", {"inputs": list(texts)})
    limit = client.model.info.max_input_length
    found = [[token["id"] for token in text] for text in tokens]
    return found[: next(place for place, ids in enumerate(found) if len(ids) > limit)]


@pytest.mark.parametrize(("name", "streams"), [("bert", 1), ("bert", 2), ("xlm-roberta", 2), ("bert-dense", 1)])
def test_embeddings(name: str, streams: int) -> None:
    with in_process(name) as library:
        wanted = np.concatenate([library.embed([text]) for text in TEXTS])
        same(library.embed(TEXTS), wanted)
        same(library.embed([*CROWD, *TEXTS, *CROWD])[len(CROWD) :][: len(TEXTS)], wanted)
    singles = [{"inputs": text} for text in TEXTS]
    crowd = [{"inputs": text} for text in CROWD]
    with served(name, streams) as client:
        for path in ("/embed", "/", "/invocations"):
            same(ask(client, path, {"inputs": TEXTS})[0], wanted)
        same([answer[0] for answer in ask(client, "/embed", *singles)], wanted)
        same([answer[0] for answer in ask_at_once(client, "/embed", singles, crowd)], wanted)
        batches = [{"inputs": TEXTS[:5]}, {"inputs": TEXTS[5:]}]
        same(np.concatenate(ask_at_once(client, "/embed", batches, crowd)), wanted)

        ids = ids_of(client, TEXTS)
        fits = wanted[: len(ids)]
        assert len(ids) >= len(TEXTS) // 2
        same(ask(client, "/embed", {"inputs": ids})[0], fits)
        same([answer[0] for answer in ask(client, "/embed", *({"inputs": one} for one in ids))], fits)
        same(ask(client, "/embed", {"inputs": [TEXTS[0], *ids[1:]]})[0], fits)

        for given, vectors in ((TEXTS, wanted), (ids, fits)):
            (answer,) = ask(client, "/v1/embeddings", {"input": given})
            same([item["embedding"] for item in answer["data"]], vectors)
            (answer,) = ask(client, "/embeddings", {"input": given, "encoding_format": "base64"})
            same([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]], vectors)

        (answer,) = ask(client, "/vertex", {"instances": [*singles, {"inputs": TEXTS}]})
        same([prediction[0] for prediction in answer["predictions"][:-1]], wanted)
        same(answer["predictions"][-1], wanted)

        (cosines,) = ask(client, "/similarity", {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}})
        same(cosines, wanted @ wanted[0])
        whole = np.array(ask(client, "/embed", {"inputs": TEXTS, "normalize": False})[0], np.float32)
        same(whole / np.linalg.norm(whole, axis=1, keepdims=True), wanted)
        if name == "bert":  # the mean of the tokens
            means = [np.mean(tokens, axis=0) for tokens in ask(client, "/embed_all", {"inputs": TEXTS})[0]]
            same(means, whole)


def test_prompts() -> None:
    with served("xlm-roberta") as client:
        named = {"inputs": TEXTS[:-1], "prompt_name": "passage"}
        file = MODELS / "xlm-roberta" / "config_sentence_transformers.json"
        prompt = json.loads(file.read_text())["prompts"]["passage"]
        (written,) = ask(client, "/embed", {"inputs": [prompt + text for text in TEXTS[:-1]]})
        same(ask(client, "/embed", named)[0], np.array(written, np.float32))


@pytest.mark.parametrize(("name", "streams"), [("bert-reranker", 2), ("xlm-roberta-reranker", 1)])
def test_scores(name: str, streams: int) -> None:
    query = "what does the function return?"

    def placed(ranks: Any) -> list[float]:
        return [rank["score"] for rank in sorted(ranks, key=lambda rank: rank["index"])]

    with in_process(name) as library:
        wanted = np.array([library.rerank(query, [text])[0].score for text in TEXTS], np.float32)
        same([rank.score for rank in sorted(library.rerank(query, TEXTS), key=lambda rank: rank.index)], wanted)
        same([found[0].score for found in library.predict([(query, text) for text in TEXTS])], wanted)
    together = {"query": query, "texts": TEXTS}
    singles = [{"query": query, "texts": [text]} for text in TEXTS]
    crowd = [{"query": text, "texts": CROWD[:2]} for text in CROWD]
    with served(name, streams) as client:
        for path in ("/rerank", "/", "/invocations"):
            same(placed(ask(client, path, together)[0]), wanted)
        same([ranks[0]["score"] for ranks in ask(client, "/rerank", *singles)], wanted)
        same([ranks[0]["score"] for ranks in ask_at_once(client, "/rerank", singles, crowd)], wanted)
        same(placed(ask_at_once(client, "/rerank", [together], crowd)[0]), wanted)
        (answer,) = ask(client, "/vertex", {"instances": [together, *singles]})
        same(placed(answer["predictions"][0]), wanted)
        same([ranks[0]["score"] for ranks in answer["predictions"][1:]], wanted)
        (raw,) = ask(client, "/rerank", together | {"raw_scores": True})
        same(1 / (1 + np.exp(-np.array(placed(raw)))), wanted)
        (pairs,) = ask(client, "/predict", {"inputs": [[query, text] for text in TEXTS]})
        same([classes[0]["score"] for classes in pairs], wanted)


@pytest.mark.parametrize(("name", "streams"), [("bert-classifier", 2), ("roberta-classifier", 1)])
def test_classes(name: str, streams: int) -> None:
    with in_process(name) as library:
        labels = library.info.labels

        def row(classes: Sequence[Prediction | dict[str, Any]]) -> list[float]:
            pairs = [(c.label, c.score) if isinstance(c, Prediction) else (c["label"], c["score"]) for c in classes]
            return [dict(pairs)[label] for label in labels]

        wanted = np.array([row(library.predict([text])[0]) for text in TEXTS], np.float32)
        same([row(classes) for classes in library.predict(TEXTS)], wanted)
    batch = {"inputs": [[text] for text in TEXTS]}
    singles = [{"inputs": text} for text in TEXTS]
    crowd = [{"inputs": text} for text in CROWD]
    with served(name, streams) as client:
        for path in ("/predict", "/", "/invocations"):
            same([row(classes) for classes in ask(client, path, batch)[0]], wanted)
        same([row(classes) for classes in ask(client, "/predict", *singles)], wanted)
        same([row(classes) for classes in ask_at_once(client, "/predict", singles, crowd)], wanted)
        same([row(classes) for classes in ask_at_once(client, "/predict", [batch], crowd)[0]], wanted)
        (answer,) = ask(client, "/vertex", {"instances": [*singles, batch]})
        same([row(classes) for classes in answer["predictions"][:-1]], wanted)
        same([row(classes) for classes in answer["predictions"][-1]], wanted)


@pytest.mark.parametrize(("name", "streams"), [("bert-splade", 2), ("distilbert-splade", 1)])
def test_sparse_embeddings(name: str, streams: int) -> None:
    with in_process(name, Pooling.SPLADE) as library:
        width = library.info.dimensions

        def dense(found: Sparse | list[dict[str, Any]]) -> Float32Array:
            row = np.zeros(width, np.float32)
            if isinstance(found, Sparse):
                row[found.indices] = found.values
            else:
                row[[entry["index"] for entry in found]] = [entry["value"] for entry in found]
            return row

        wanted = np.stack([dense(library.embed_sparse([text])[0]) for text in TEXTS])
        same([dense(found) for found in library.embed_sparse(TEXTS)], wanted)
    singles = [{"inputs": text} for text in TEXTS]
    crowd = [{"inputs": text} for text in CROWD]
    with served(name, streams, Pooling.SPLADE) as client:
        for path in ("/embed_sparse", "/", "/invocations"):
            same([dense(found) for found in ask(client, path, {"inputs": TEXTS})[0]], wanted)
        same([dense(answer[0]) for answer in ask(client, "/embed_sparse", *singles)], wanted)
        same([dense(answer[0]) for answer in ask_at_once(client, "/embed_sparse", singles, crowd)], wanted)
        ids = ids_of(client, TEXTS)
        same([dense(found) for found in ask(client, "/embed_sparse", {"inputs": ids})[0]], wanted[: len(ids)])
        same(ask(client, "/embed", {"inputs": TEXTS, "normalize": False})[0], wanted)
        (answer,) = ask(client, "/vertex", {"instances": singles})
        same([dense(prediction[0]) for prediction in answer["predictions"]], wanted)
