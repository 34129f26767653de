from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_embeddings_inference.types import Batch, Encoding


def encoding(*ids: int, types: tuple[int, ...] | None = None) -> Encoding:
    return Encoding(np.array(ids, np.int32), None if types is None else np.array(types, np.int32), 0)


PLAIN = [encoding(5, 6, 7), encoding(8), encoding(9, 3)]
TYPED = [encoding(5, 6, 7), encoding(8, 9, types=(0, 1))]


def test_an_encoding_is_as_long_as_its_ids() -> None:
    assert [len(each) for each in PLAIN] == [3, 1, 2]


def test_pad() -> None:
    batch = Batch.pad(PLAIN)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 0, 0], [9, 3, 0]]
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.type_ids is None
    assert not batch.is_packed
    assert (batch.tokens, batch.computed_tokens) == (6, 9)


def test_pack() -> None:
    batch = Batch.pack(PLAIN)
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9, 3]
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.type_ids is None
    assert batch.is_packed
    assert (batch.tokens, batch.computed_tokens) == (6, 6)


def test_types_of_rows_without_them_are_0() -> None:
    padded, packed = Batch.pad(TYPED).type_ids, Batch.pack(TYPED).type_ids
    assert padded is not None
    assert padded.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert packed is not None
    assert packed.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("arrange", [Batch.pad, Batch.pack])
def test_engines_get_int32(arrange: Callable[[list[Encoding]], Batch]) -> None:
    batch = arrange(TYPED)
    assert batch.type_ids is not None
    assert {batch.input_ids.dtype, batch.type_ids.dtype, batch.lengths.dtype} == {np.dtype(np.int32)}


@given(st.lists(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=9), min_size=1, max_size=9))
def test_both_layouts_hold_the_same_sequences(sequences: list[list[int]]) -> None:
    encodings = [encoding(*ids) for ids in sequences]
    padded, packed = Batch.pad(encodings), Batch.pack(encodings)
    rows = [row[:n].tolist() for row, n in zip(padded.input_ids, padded.lengths, strict=True)]
    parts = [part.tolist() for part in np.split(packed.input_ids, np.cumsum(packed.lengths)[:-1])]
    assert rows == parts == sequences
    assert padded.tokens == packed.tokens == np.count_nonzero(padded.input_ids)
