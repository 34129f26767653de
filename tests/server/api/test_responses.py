"""The JSON of answers: digits of float32, nulls, and long answers in pieces."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest

from tests.fakes import fake_info
from text_embeddings_inference.inference.results import Prediction, Rank, Sparse
from text_embeddings_inference.server.accounting import Served, Timed, usage_headers
from text_embeddings_inference.server.api import openai, responses
from text_embeddings_inference.types import Float32Array, Timings, Token, Usage


def text(pieces: Coroutine[Any, Any, list[bytes]]) -> bytes:
    return b"".join(asyncio.run(pieces))


def random_rows(*shape: int) -> Float32Array:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, b"1.0"),
        (0.1, b"0.1"),
        (-0.0004003, b"-0.0004003"),
        (1e-7, b"1e-7"),
        (16777216, b"16777216.0"),
        (1 / 3, b"0.33333334"),
        (np.nan, b"null"),
        (-np.inf, b"null"),
        (0, b"0.0"),
    ],
)
def test_numbers_have_the_fewest_digits_of_float32(value: float, expected: bytes) -> None:
    assert responses.numbers(np.array([value], np.float32)) == b"[%b]" % expected
    assert responses.predictions([[Prediction("a", float(np.float32(value)))]], single=True) == (
        b'[{"score":%b,"label":"a"}]' % expected
    )


def test_every_float32_comes_back() -> None:
    bits = np.random.default_rng(2).integers(0, 2**32, 50_000, np.uint32).view(np.float32)
    finite = bits[np.isfinite(bits)]
    assert np.array_equal(np.float32(json.loads(responses.numbers(finite))), finite)


@pytest.mark.parametrize("shape", [(1, 4), (3, 384), (300, 384), (2, 40_000)])
def test_vectors_in_pieces(shape: tuple[int, int]) -> None:
    rows = random_rows(*shape)
    pieces = asyncio.run(responses.vectors(list(rows)))
    assert np.array_equal(np.float32(json.loads(b"".join(pieces))), rows)
    assert all(len(piece) < 16 * max(responses.NUMBERS_AT_ONCE, shape[1]) for piece in pieces)


def test_token_vectors_in_pieces() -> None:
    rows = [random_rows(3, 8), random_rows(500, 384), random_rows(1, 8)]
    pieces = asyncio.run(responses.token_vectors(rows))
    found = json.loads(b"".join(pieces))
    assert all(np.array_equal(np.float32(f), row) for f, row in zip(found, rows, strict=True))
    assert len(pieces) > 3


def test_short_answers_are_one_piece() -> None:
    assert len(asyncio.run(responses.vectors(list(random_rows(32, 384))))) == 1
    assert len(asyncio.run(responses.token_vectors([random_rows(4, 8), random_rows(5, 8)]))) == 1


def test_other_requests_have_their_turn() -> None:
    """While a long answer is encoded, the loop goes round often."""
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        encoding = asyncio.create_task(responses.token_vectors([random_rows(2000, 384)]))
        while not encoding.done():
            turns += 1
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert turns >= 2000 * 384 // responses.NUMBERS_AT_ONCE


@pytest.mark.parametrize("count", [0, 1, 5, 5000])
def test_sparse(count: int) -> None:
    indices, values = np.arange(count) * 2, random_rows(count)
    found = json.loads(text(responses.sparse([Sparse(indices, values), Sparse(indices, values)])))
    expected = [(int(i), float(v)) for i, v in zip(indices, values, strict=True)]
    assert [(e["index"], float(np.float32(e["value"]))) for e in found[0]] == expected
    assert found[1] == found[0]


def test_many_tokens() -> None:
    token, special = Token(5, 'a"é', False, 0, 4), Token(1, "[CLS]", True, None, None)
    shown = {"id": 5, "text": 'a"é', "special": False, "start": 0, "stop": 4}
    found = json.loads(text(responses.tokens([[special], [token] * 3000])))
    assert found == [[{"id": 1, "text": "[CLS]", "special": True, "start": None, "stop": None}], [shown] * 3000]
    assert list(found[1][0]) == ["id", "text", "special", "start", "stop"]


def test_ranks_with_and_without_text() -> None:
    found = [Rank(1, 0.75), Rank(0, 0.5)]
    assert responses.ranks(found, None) == b'[{"index":1,"score":0.75},{"index":0,"score":0.5}]'
    assert responses.ranks(found[:1], ["x", "y"]) == b'[{"index":1,"text":"y","score":0.75}]'


def openai_answer(
    rows: list[Any], encoding_format: Literal["float", "base64"], model: str = "m"
) -> Coroutine[Any, Any, list[bytes]]:
    served = cast(Served, SimpleNamespace(model=SimpleNamespace(info=replace(fake_info(), served_name=model))))
    done = Timed(rows, Usage(1, 7, Timings(0, 0, 0)), 0.1)
    return openai.embeddings(served, openai.OpenAIRequest("1", encoding_format=encoding_format), done)


def test_openai_base64_is_little_endian_float32() -> None:
    rows = list(random_rows(2, 20_000))
    found = json.loads(text(openai_answer(rows, "base64")))
    for row, item in zip(rows, found["data"], strict=True):
        assert base64.b64decode(item["embedding"], validate=True) == row.tobytes()


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_openai_answers_come_in_pieces(encoding_format: Literal["float", "base64"]) -> None:
    few, many = (
        asyncio.run(openai_answer(list(random_rows(count, 1024)), encoding_format, "[]")) for count in (2, 500)
    )
    assert len(few) == 1
    assert max(map(len, many)) < 2 * responses.PIECE
    found = json.loads(b"".join(many))
    assert [item["index"] for item in found["data"]] == list(range(500))
    assert found["model"] == "[]"
    assert found["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_times_are_whole_milliseconds_rounded_down() -> None:
    usage = Usage(3, 4, Timings(tokenization=0.0019, queue=-0.0001, inference=0.0249))
    found = dict(usage_headers(Timed(None, usage, 1.0009)))
    assert (found[b"x-total-time"], found[b"x-compute-time"]) == (b"1000", b"1000")
    assert (found[b"x-tokenization-time"], found[b"x-queue-time"], found[b"x-inference-time"]) == (b"1", b"0", b"24")
