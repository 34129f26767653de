from __future__ import annotations

import numpy as np

from text_embeddings_inference.inference.results import hidden_states, lexical_weights, token_vectors
from text_embeddings_inference.types import Encoding, TokenColumns

ROW = np.arange(15, dtype=np.float32).reshape(3, 5)
"""Three tokens: a weight, two values of a vector, two of a hidden state."""
ALL = TokenColumns(weights=True, vectors=2, first=1)
ENCODING = Encoding(np.array([0, 7, 2], np.int32), None, 1)


def test_hidden_states() -> None:
    assert hidden_states(ROW, ALL).tolist() == [[3, 4], [8, 9], [13, 14]]
    assert np.shares_memory(hidden_states(ROW, TokenColumns()), ROW)
    assert hidden_states(ROW, ALL).flags.c_contiguous


def test_token_vectors() -> None:
    assert token_vectors(ROW, ALL, ENCODING).tolist() == [[6, 7], [11, 12]]
    late = TokenColumns(vectors=5, hidden=False)
    assert token_vectors(ROW, late, ENCODING).tolist() == ROW.tolist()
    some = Encoding(ENCODING.input_ids, None, 1, kept=np.array([0, 2]))
    assert token_vectors(ROW, late, some).tolist() == ROW[[0, 2]].tolist()


def test_lexical_weights_are_the_largest_of_each_id() -> None:
    row = np.array([9, 0.5, 2, 1, 0, 3, 9], np.float32)[:, None]
    encoding = Encoding(np.array([0, 7, 5, 7, 8, 5, 2], np.int32), None, 1)
    found = lexical_weights(row, encoding, special={0, 2})
    assert found.indices.tolist() == [5, 7]
    assert found.values.tolist() == [3, 1]


def test_lexical_weights_of_special_tokens_alone() -> None:
    found = lexical_weights(np.ones((2, 1), np.float32), Encoding(np.array([0, 2], np.int32), None, 1), special={0, 2})
    assert found.indices.tolist() == []
