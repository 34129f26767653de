"""From the engine's rows to what was asked for: vectors, sparse entries, probabilities, scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DimensionsError, NotANumberError
from ..types import Float32Array


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
    """The score of one text; index: its place in the request."""

    index: int
    score: float


def vector(row: Float32Array, *, normalize: bool, dimensions: int | None) -> Float32Array:
    """The first `dimensions` values, then divided by their length (a vector of zeros becomes NaN)."""
    row = row[:dimensions]
    if not normalize:
        return row
    wide = row.astype(np.float64)  # squares of small values are 0 in float32
    square = float(np.dot(wide, wide))
    return row * np.float32(1 / math.sqrt(square)) if 0 < square < math.inf else np.full_like(row, math.nan)


def check_positive(dimensions: int | None) -> None:
    """Raises DimensionsError for 0."""
    if dimensions is not None and dimensions <= 0:
        raise DimensionsError("should be positive")


def check_width(dimensions: int | None, width: int) -> None:
    """Raises DimensionsError for more dimensions than the vector has."""
    if dimensions is not None and dimensions > width:
        raise DimensionsError("should be smaller than the maximum embedding dimension.")


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
