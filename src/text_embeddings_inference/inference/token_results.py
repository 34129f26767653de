"""From what an engine gives for the tokens of one input, `[n, W]`, to what was asked for (see `types.TokenColumns`)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ..types import Encoding, Float32Array, TokenColumns
from .results import Sparse


def hidden_states(row: Float32Array, columns: TokenColumns) -> Float32Array:
    """The last hidden states, `[n, D]`."""
    start = int(columns.weights) + columns.vectors
    return np.ascontiguousarray(row[:, start:])


def token_vectors(row: Float32Array, columns: TokenColumns, encoding: Encoding) -> Float32Array:
    """The vectors for late interaction of those tokens that have one."""
    start = int(columns.weights)
    vectors = row[columns.first :, start : start + columns.vectors]
    return np.ascontiguousarray(vectors if encoding.kept is None else vectors[encoding.kept])


def lexical_weights(row: Float32Array, encoding: Encoding, special: Collection[int]) -> Sparse:
    """The largest weight of each token id; those of special tokens and zeros are left out."""
    ids, places = np.unique(encoding.input_ids, return_inverse=True)
    weights = np.zeros(len(ids), np.float32)
    np.maximum.at(weights, places, row[:, 0])
    found = (weights > 0) & ~np.isin(ids, list(special))
    return Sparse(ids[found].astype(np.int64), weights[found])
