"""Rows become vectors, sparse entries, probabilities and scores: their order, and the values where formulas break."""

from __future__ import annotations

import math

import numpy as np
import pytest

from text_embeddings_inference.errors import NotANumberError
from text_embeddings_inference.inference import results
from text_embeddings_inference.types import Float32Array

LABELS = ("a", "b", "c")


def row(*values: float) -> Float32Array:
    return np.array(values, np.float32)


def test_vector_has_length_one() -> None:
    np.testing.assert_array_equal(results.vector(row(3, 4), normalize=True, dimensions=None), row(0.6, 0.8))


def test_vector_is_cut_before_it_is_normalized() -> None:
    np.testing.assert_array_equal(results.vector(row(3, 4, 12), normalize=True, dimensions=2), row(0.6, 0.8))


def test_vector_as_it_is() -> None:
    values = row(3, 4, 12)
    assert results.vector(values, normalize=False, dimensions=None).base is values, "a view"
    np.testing.assert_array_equal(results.vector(values, normalize=False, dimensions=2), row(3, 4))


def test_vector_of_zeros_becomes_nan() -> None:
    assert np.isnan(results.vector(row(0, 0), normalize=True, dimensions=None)).all()


@pytest.mark.parametrize("scale", [1e-25, 1e25], ids=str)
def test_vector_whose_squares_leave_float32(scale: float) -> None:
    found = results.vector(row(3 * scale, 4 * scale), normalize=True, dimensions=None)
    np.testing.assert_allclose(found, row(0.6, 0.8), rtol=1e-6)
    assert found.dtype == np.float32


def test_sparse_entries_by_ascending_index() -> None:
    found = results.sparse(row(0, 1.5, 0, 0.25, 0))
    assert (found.indices.tolist(), found.values.tolist()) == ([1, 3], [1.5, 0.25])
    assert results.sparse(row(0, 0)).indices.tolist() == []


def test_predictions_best_first() -> None:
    found = results.predictions(row(1, 3, 2), LABELS, raw=False)
    assert [prediction.label for prediction in found] == ["b", "c", "a"]
    powers = np.exp([3, 2, 1])
    np.testing.assert_allclose([prediction.score for prediction in found], powers / powers.sum(), rtol=1e-6)


def test_raw_predictions_are_logits() -> None:
    found = results.predictions(row(-1, 3, 2), LABELS, raw=True)
    assert [(prediction.label, prediction.score) for prediction in found] == [("b", 3), ("c", 2), ("a", -1)]


def test_a_single_label_gets_a_sigmoid() -> None:
    [prediction] = results.predictions(row(0), ("only",), raw=False)
    assert prediction == results.Prediction("only", 0.5)


def test_of_equal_scores_the_higher_place_comes_first() -> None:
    assert [prediction.label for prediction in results.predictions(row(2, 5, 2), LABELS, raw=True)] == ["b", "c", "a"]
    assert [rank.index for rank in results.ranks(row(1, 7, 1, 7, 1), raw=True)] == [3, 1, 4, 2, 0]


def test_scores_that_are_all_one_are_in_the_order_of_their_logits() -> None:
    found = results.ranks(row(20, 40, 30, 40, -1), raw=False)
    assert [rank.index for rank in found] == [3, 1, 2, 0, 4]
    assert [rank.score for rank in found[:4]] == [1, 1, 1, 1]
    assert [rank.index for rank in results.ranks(row(-150, -120, -200), raw=False)] == [1, 0, 2], "all scores are 0"


def test_classes_whose_scores_are_all_zero_are_in_the_order_of_their_logits() -> None:
    found = results.predictions(row(-200, 500, -150, -300), (*LABELS, "d"), raw=False)
    assert [(prediction.label, prediction.score) for prediction in found] == [("b", 1), ("c", 0), ("a", 0), ("d", 0)]


@pytest.mark.parametrize("size", [1, 30, 88, 89, 1000, 3e38], ids=str)
def test_no_logit_is_too_large(size: float) -> None:
    small = math.exp(-size)
    expected = [small / (1 + small), 0.5, 1 / (1 + small)]
    np.testing.assert_allclose(results.sigmoid(row(-size, 0, size)), expected, rtol=1e-6, atol=1e-38)
    assert results.softmax(row(-size, -size)).tolist() == [0.5, 0.5]
    assert results.softmax(row(size, size)).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(results.softmax(row(size, 0)).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("raw", [False, True], ids=["scores", "raw"])
def test_nan_is_an_error(raw: bool) -> None:
    logits = row(1, math.nan, 2)
    with pytest.raises(NotANumberError, match=r"^score is NaN$"):
        results.predictions(logits, LABELS, raw=raw)
    with pytest.raises(NotANumberError):
        results.ranks(logits, raw=raw)


def test_an_infinite_logit_has_no_softmax() -> None:
    with pytest.raises(NotANumberError):
        results.predictions(row(math.inf, 0, 0), LABELS, raw=False)


def test_no_ranks() -> None:
    assert results.ranks(row(), raw=False) == []


def test_cosine() -> None:
    assert results.cosine(row(1, 0), row(0, 2)) == 0
    assert results.cosine(row(3, 4), row(3, 4)) == 1
    assert results.cosine(row(3, 4), row(-6, -8)) == -1
    assert results.cosine(row(1, 1), row(1, 0)) == pytest.approx(math.sqrt(0.5))


def test_cosine_with_a_vector_of_zeros_is_0() -> None:
    assert results.cosine(row(0, 0), row(1, 2)) == 0
    assert results.cosine(row(0, 0), row(0, 0)) == 0


def test_cosine_of_small_vectors() -> None:
    assert results.cosine(row(1e-15, 0), row(1e-15, 0)) == pytest.approx(1)
    assert results.cosine(row(1e-30, 0), row(1e3, 0)) == 0  # the square is 0 in float32


def test_cosine_of_nan_is_nan() -> None:
    assert math.isnan(results.cosine(row(math.nan, 0), row(1, 2)))
