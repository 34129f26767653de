"""Every engine against the outputs that Transformers and sentence-transformers gave for the fixture checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from engines import ENGINES, Models, Row, fixture
from oracle.expected import COSINE, FIXTURES, LATE_ROLES, TOLERANCE, Case
from text_embeddings_inference.inference.results import (
    hidden_states,
    lexical_weights,
    ranks,
    sigmoid,
    softmax,
    token_vectors,
    vector,
)
from text_embeddings_inference.types import Float32Array, Pooling, TokenColumns

on_every_engine = pytest.mark.parametrize("engine", ENGINES)
on_every_fixture = pytest.mark.parametrize("name", FIXTURES)

EMBEDDERS = [name for name in FIXTURES if fixture(name).task == "embedding"]
RERANKERS = [name for name in FIXTURES if fixture(name).task == "reranker"]
ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}


def check_close(actual: Float32Array, expected: Float32Array, what: str) -> None:
    assert actual.shape == expected.shape, what
    difference = float(np.abs(actual - expected).max())
    assert difference <= TOLERANCE, f"{what}: differs by {difference:.2g}"


def check_cosine(actual: Float32Array, expected: Float32Array, what: str) -> None:
    cosine = np.dot(actual, expected) / np.linalg.norm(actual) / np.linalg.norm(expected)
    assert cosine >= COSINE, f"{what}: cosine {cosine:.6f}"


def check_case(row: Row, case: Case, columns: TokenColumns) -> None:
    check_close(row.pooled, case.output, case.name)
    if case.embedding is not None:
        normalized = vector(row.pooled, normalize=True, dimensions=None)
        check_close(normalized, case.embedding, f"{case.name}, normalized")
    for activation, expected in case.probabilities.items():
        check_close(ACTIVATIONS[activation](row.pooled), expected, f"{case.name}, {activation}")
    if not case.probabilities:
        check_cosine(row.pooled, case.output, case.name)
    check_tokens(row, case, columns)


def check_tokens(row: Row, case: Case, columns: TokenColumns) -> None:
    """What tokens got: last hidden states, vectors for late interaction, lexical weights."""
    if case.tokens is not None:
        assert row.tokens is not None
        check_close(hidden_states(row.tokens, columns), case.tokens, f"{case.name}, tokens")
    if case.vectors is not None:
        assert row.tokens is not None
        check_close(token_vectors(row.tokens, columns, case.encoding), case.vectors, f"{case.name}, vectors")
    if case.weights is not None:
        assert row.tokens is not None
        found = lexical_weights(row.tokens, case.encoding, special={0, 1, 2, 3})
        assert found.indices.tolist() == sorted(case.weights)
        check_close(found.values, np.array([case.weights[id_] for id_ in found.indices], np.float32), case.name)


@on_every_fixture
def test_fixture_has_what_is_compared(name: str) -> None:
    """So that no comparison below passes because there was nothing to compare."""
    cases, task = fixture(name).cases, fixture(name).task
    assert len(cases) >= 8
    assert any(case.tokens is not None or case.vectors is not None for case in cases) == (task == "embedding")
    assert all(bool(case.pooled) == (task == "embedding") for case in cases)
    assert all((case.embedding is not None) == bool(case.pooled) for case in cases) or fixture(name).is_late
    assert all((case.weights is not None) == fixture(name).columns.weights for case in cases)
    assert all(bool(case.probabilities) == (task in ("classification", "reranker")) for case in cases)
    assert max(len(case.encoding) for case in cases) == fixture(name).max_input_length


@on_every_fixture
@on_every_engine
def test_one_by_one(models: Models, engine: str, name: str) -> None:
    model = models.get(engine, name)
    for case in fixture(name).cases:
        check_case(*model.run([case.encoding]), case, fixture(name).columns)


@on_every_fixture
@on_every_engine
def test_in_one_batch(models: Models, engine: str, name: str) -> None:
    cases = fixture(name).cases
    rows = models.get(engine, name).run([case.encoding for case in cases])
    for row, case in zip(rows, cases, strict=True):
        check_case(row, case, fixture(name).columns)


@pytest.mark.parametrize("pooling", [Pooling.CLS, Pooling.MEAN, Pooling.LAST_TOKEN])
@pytest.mark.parametrize("name", [name for name in EMBEDDERS if fixture(name).gives_pooled])
@on_every_engine
def test_another_pooling(models: Models, engine: str, name: str, pooling: Pooling) -> None:
    cases = fixture(name).cases
    rows = models.get(engine, name, pooling=pooling).run([case.encoding for case in cases])
    for row, case in zip(rows, cases, strict=True):
        check_close(row.pooled, case.pooled[pooling], case.name)


@on_every_engine
def test_another_dense_module(models: Models, engine: str) -> None:
    cases = fixture("bert-dense").dense_cases
    assert len(cases) == 8
    for case in cases:
        [row] = models.get(engine, "bert-dense", dense_path=case.dense_path).run([case.encoding])
        check_close(row.pooled, case.output, case.dense_path)
        check_close(vector(row.pooled, normalize=True, dimensions=None), case.embedding, case.dense_path)


@on_every_engine
def test_late_interaction(models: Models, engine: str) -> None:
    """Queries and documents in one batch, then their scores: each query token's best match in the document, summed."""
    wanted = fixture("colbert")
    cases = [case for role in LATE_ROLES for case in wanted.late_cases[role]]
    rows = models.get(engine, "colbert").run([case.encoding for case in cases])
    for row, case in zip(rows, cases, strict=True):
        check_tokens(row, case, wanted.columns)
    vectors = [
        token_vectors(row.tokens, wanted.columns, case.encoding)
        for row, case in zip(rows, cases, strict=True)
        if row.tokens is not None
    ]
    n = len(wanted.late_cases["queries"])
    scores = [[(query @ document.T).max(1).sum() for document in vectors[n:]] for query in vectors[:n]]
    assert np.abs(np.array(scores) - wanted.maxsim).max() <= 1e-3


@pytest.mark.parametrize("name", RERANKERS)
@on_every_engine
def test_rerank(models: Models, engine: str, name: str) -> None:
    rerank = fixture(name).rerank
    scores = np.concatenate([row.pooled for row in models.get(engine, name).run(rerank.encodings)])
    check_close(scores, rerank.raw_scores, "raw scores")
    check_close(sigmoid(scores), rerank.scores, "scores")
    assert [rank.index for rank in ranks(scores, raw=False)] == rerank.order
