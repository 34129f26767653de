"""From the engine's rows to what was asked for: vectors, sparse entries, probabilities, scores.

Of models that give something for each token, a row is `[n, W]` (see `types.TokenColumns`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import NotANumberError
from ..types import Encoding, Float32Array, TokenColumns


@dataclass(frozen=True, slots=True)
class Sparse:
    """The entries of a sparse vector that are not 0, by ascending index."""

    indices: NDArray[np.int64]
    values: Float32Array


@dataclass(frozen=True, slots=True)
class Prediction:
    """The score of one class."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Rank:
    """The score of one text."""

    index: int
    """Its place in the request."""
    score: float


def vector(row: Float32Array, *, normalize: bool, dimensions: int | None) -> Float32Array:
    """The first `dimensions` values, then divided by their length (a vector of zeros becomes NaN)."""
    row = row[:dimensions]
    if not normalize:
        return row
    wide = row.astype(np.float64)  # squares of small values are 0 in float32
    square = float(np.dot(wide, wide))
    return row * np.float32(1 / math.sqrt(square)) if 0 < square < math.inf else np.full_like(row, math.nan)


def sparse(row: Float32Array) -> Sparse:
    indices = np.flatnonzero(row)
    return Sparse(indices, row[indices])


def predictions(logits: Float32Array, labels: tuple[str, ...], *, raw: bool) -> list[Prediction]:
    """All classes, best first; of equal logits the higher class index comes first.

    Softmax over several labels, sigmoid of a single one, logits if `raw`. Raises NotANumberError.
    """
    scores = logits if raw else sigmoid(logits) if len(labels) == 1 else softmax(logits)
    return [Prediction(labels[i], float(scores[i])) for i in best_first(logits, scores)]


def ranks(logits: Float32Array, *, raw: bool) -> list[Rank]:
    """All texts, best first; of equal logits the later text comes first. Raises NotANumberError."""
    scores = logits if raw else sigmoid(logits)
    return [Rank(i, float(scores[i])) for i in best_first(logits, scores)]


def best_first(logits: Float32Array, scores: Float32Array) -> list[int]:
    """Places by descending logit: a stable ascending sort, reversed.

    Not by score: logits above 16 all have the score 1.0 in float32. Raises NotANumberError.
    """
    if np.isnan(scores).any():
        raise NotANumberError
    return [int(i) for i in np.argsort(logits, kind="stable")[::-1]]


def sigmoid(x: Float32Array) -> Float32Array:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-x))


def softmax(x: Float32Array) -> Float32Array:
    """Shifted by the maximum, so that nothing overflows; NaN if a logit is infinite."""
    with np.errstate(invalid="ignore"):
        powers: Float32Array = np.exp(x - x.max())
    shares: Float32Array = powers / powers.sum()
    return shares


def cosine(x: Float32Array, y: Float32Array) -> float:
    """0 if either vector is all zeros."""
    norms = math.sqrt(float(np.dot(x, x)) * float(np.dot(y, y)))
    return float(np.dot(x, y)) / norms if norms else 0.0


def hidden_states(row: Float32Array, columns: TokenColumns) -> Float32Array:
    """The last hidden states, `[n, D]`."""
    start = int(columns.weights) + columns.vectors
    return np.ascontiguousarray(row[:, start:])


def token_vectors(row: Float32Array, columns: TokenColumns, encoding: Encoding) -> Float32Array:
    """The vectors for late interaction of those tokens that have one."""
    start = int(columns.weights)
    vectors = row[columns.first :, start : start + columns.vectors]
    return np.ascontiguousarray(vectors if encoding.kept is None else vectors[encoding.kept])


def maxsim(query: Float32Array, document: Float32Array) -> float:
    """The product of each of the query's vectors `[m, D]` with the document's `[n, D]` that fits best, summed.

    Khattab & Zaharia, arXiv:2004.12832. A document without a vector fits nothing: -1 for each.
    """
    return float((query @ document.T).max(axis=1, initial=-1.0 if len(document) == 0 else -math.inf).sum())


def matches(sums: Float32Array, vectors: int, *, raw: bool) -> list[Rank]:
    """All texts by their `maxsim`, best first; of equal ones the later text comes first. Raises NotANumberError.

    vectors: how many the query has. The score is their mean best match, a cosine, or the sum if `raw`.
    """
    scores = sums if raw else sums / np.float32(max(1, vectors))
    return [Rank(i, float(scores[i])) for i in best_first(sums, scores)]


def lexical_weights(row: Float32Array, encoding: Encoding, special: Collection[int]) -> Sparse:
    """The largest weight of each token id; those of special tokens and zeros are left out."""
    ids, places = np.unique(encoding.input_ids, return_inverse=True)
    weights = np.zeros(len(ids), np.float32)
    np.maximum.at(weights, places, row[:, 0])
    found = (weights > 0) & ~np.isin(ids, list(special))
    return Sparse(ids[found].astype(np.int64), weights[found])
