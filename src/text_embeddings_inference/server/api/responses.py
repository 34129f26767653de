"""From what the model gives to JSON: types that the OpenAPI document describes, and bytes.

Vectors go from NumPy's buffer to text in one step (orjson writes float32 with the fewest digits that give the same
float32 back, NaN and infinities as null): a `msgspec.Raw` in a response is JSON that was made this way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ...inference.cooperative import Budget
from ...inference.results import Prediction, Rank, Sparse
from ...types import Float32Array, Token

T = TypeVar("T")

NUMBERS_AT_ONCE = 1 << 14
"""Numbers encoded before other requests have their turn: about 0.5 ms, 180 kB."""
OBJECTS_AT_ONCE = 1 << 10
"""The same for small objects."""
PIECE = 1 << 16
"""Smaller pieces of a body are sent together, in bytes."""

BYTES_OF_NUMBER = 11
BYTES_OF_OBJECT = 40
"""Of JSON, roughly, as `size` adds them up."""

_NUMBER = {"type": "number"}
NUMBER_OR_NULL = {"anyOf": [_NUMBER, {"type": "null"}]}
Number = Annotated[Raw, Meta(extra_json_schema=_NUMBER)]
Vector = Annotated[Raw, Meta(extra_json_schema={"type": "array", "items": NUMBER_OR_NULL})]


class SparseValue(Struct):
    """One entry of a sparse vector that is not 0."""

    index: int
    value: Number


class PredictionResponse(Struct):
    """The score of one class."""

    score: Number
    label: str


class RankResponse(Struct, kw_only=True):
    """The score of one text; `text` is there only if `return_text` asked for it."""

    index: int
    text: str | UnsetType = UNSET
    score: Number


def size(rows: Sequence[Float32Array]) -> int:
    """Bytes of the JSON of vectors, or of the vectors of tokens, roughly."""
    return BYTES_OF_NUMBER * sum(row.size for row in rows)


def size_of_sparse(rows: Sequence[Sparse]) -> int:
    """Bytes of the JSON of sparse vectors, roughly."""
    return BYTES_OF_OBJECT * sum(len(row.indices) for row in rows)


def size_of_tokens(texts: Sequence[Sequence[Token]]) -> int:
    """Bytes of the JSON of tokens, roughly."""
    return 2 * BYTES_OF_OBJECT * sum(map(len, texts))


async def vectors(rows: Sequence[Float32Array] | Float32Array) -> list[bytes]:
    """`[[f, ...], ...]`: rows of equal width."""
    return await _array(len(rows), max(1, NUMBERS_AT_ONCE // rows[0].size), lambda part: numbers(rows[part]))


async def token_vectors(rows: list[Float32Array]) -> list[bytes]:
    """`[[[f, ...], ...], ...]`"""
    return await arrays(rows, vectors)


async def sparse(rows: list[Sparse]) -> list[bytes]:
    """`[[{"index": i, "value": f}, ...], ...]`"""
    return await arrays(rows, _sparse_values)


async def tokens(texts: list[list[Token]]) -> list[bytes]:
    """`[[{"id": n, "text": s, ...}, ...], ...]`"""
    return await arrays(texts, _tokens_of_text)


async def _tokens_of_text(text: list[Token]) -> list[bytes]:
    return await _array(len(text), OBJECTS_AT_ONCE, lambda part: msgspec.json.encode(text[part]))


def ranks(found: list[Rank], texts: list[str] | None) -> bytes:
    """texts: to give back with their scores, None for none."""
    scores = _raw_numbers(rank.score for rank in found)
    return msgspec.json.encode(
        [
            RankResponse(index=rank.index, score=score, text=UNSET if texts is None else texts[rank.index])
            for rank, score in zip(found, scores, strict=True)
        ]
    )


def predictions(found: list[list[Prediction]], *, single: bool) -> bytes:
    """single: the list of the only input, not a list of lists."""
    answers = [_predictions(classes) for classes in found]
    return msgspec.json.encode(answers[0] if single else answers)


def _predictions(classes: list[Prediction]) -> list[PredictionResponse]:
    scores = _raw_numbers(prediction.score for prediction in classes)
    return [PredictionResponse(score, p.label) for p, score in zip(classes, scores, strict=True)]


def numbers(values: object) -> bytes:
    """float32 arrays, nested in lists or not, as JSON."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def _raw_numbers(values: Iterable[float]) -> list[Raw]:
    """Each number as JSON, in the digits of its float32."""
    array = np.fromiter(values, np.float32)
    return [Raw(text) for text in numbers(array)[1:-1].split(b",")]


async def _sparse_values(row: Sparse) -> list[bytes]:
    def encode(part: slice) -> bytes:
        pairs = zip(row.indices[part].tolist(), numbers(row.values[part])[1:-1].split(b","), strict=True)
        return b"[%b]" % b",".join([b'{"index":%d,"value":%b}' % pair for pair in pairs])

    if not len(row.indices):
        return [b"[]"]
    return await _array(len(row.indices), OBJECTS_AT_ONCE, encode)


async def _array(count: int, at_once: int, encode: Callable[[slice], bytes]) -> list[bytes]:
    """A JSON array of `count` items in pieces; encode gives the array of a part of them."""
    if count <= at_once:
        return [encode(slice(0, count))]
    pieces, budget = [], Budget(at_once)
    for start in range(0, count, at_once):
        pieces.append((b"," if start else b"[") + encode(slice(start, start + at_once))[1:-1])
        await budget.spend(at_once)
    return [*pieces, b"]"]


async def arrays(items: Sequence[T], encode: Callable[[T], Awaitable[list[bytes]]]) -> list[bytes]:
    """A JSON array of what `encode` gives for each item, in pieces that are not too small."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    size, budget = 0, Budget(PIECE)
    for place, item in enumerate(items):
        for piece in (b"," if place else b"[", *await encode(item)):
            small.append(piece)
            size += len(piece)
            if size > PIECE:
                pieces.append(b"".join(small))
                small, size = [], 0
            await budget.spend(len(piece))
    return [*pieces, b"".join([*small, b"]"])]
