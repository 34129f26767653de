"""What can be asked of a model, as values: which models refuse it, what the engine gives, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ..errors import DimensionsError, InputError, ModelTypeError, RequestError
from ..queueing.jobs import Row
from ..telemetry.metrics import Family
from ..types import EncodeOptions, Float32Array, Input, Kind, ModelInfo, Pooling, TokenColumns
from .results import (
    Prediction,
    Rank,
    Sparse,
    hidden_states,
    lexical_weights,
    matches,
    maxsim,
    predictions,
    ranks,
    sparse,
    token_vectors,
    vector,
)

T = TypeVar("T")

# What a kind of model can't do, in the words clients of text-embeddings-inference know.
NOT_EMBEDDING = "Model is not an embedding model"
NOT_SPLADE = "Model is not an embedding model with SPLADE pooling"
NOT_CLASSIFIER = "Model is not a classifier model"
NOT_RERANKER = "model is not a re-ranker model"
NO_POOLED = "Model gives a vector for each token: use `embed_all`"
NO_VECTORS = "Model has no head for late interaction: `multi_vector` is not available"
NO_TOKENS = "`embed_all` is not available for SPLADE models"
NO_SIDES = "`embed_all` is not available for models with several sides"
NO_NORMALIZE = "`normalize` is not available for SPLADE models"
NO_PROMPT = "`prompt_name` is not available: the query and the texts have roles of their own"


@dataclass(frozen=True, slots=True)
class Task(Generic[T]):
    """Something that is asked of a model for each input."""

    name: str
    refuses: Callable[[ModelInfo], RequestError | None]
    """The error with which a model refuses it, None if it doesn't."""
    finish: Callable[[Row], T]
    """What becomes of the engine's row of an input. May raise NotANumberError."""
    wants_tokens: bool = False
    """The engine is asked for what each token gets, not for the pooled vector."""
    refuses_width: Callable[[ModelInfo], RequestError | None] = lambda info: None
    """The same as `refuses`, asked once the inputs are known to be usable, as text-embeddings-inference does."""
    family: Family = "embed"
    """What its inputs are counted as."""
    query: str | None = None
    """What is asked of the inputs, as documents, in late interaction: it is run with them, and finished first."""

    def check(self, info: ModelInfo, inputs: int) -> None:
        """Raises the RequestError with which the model refuses it, for so many inputs."""
        raise_for(self.refuses(info), inputs)

    def check_width(self, info: ModelInfo, inputs: int) -> None:
        raise_for(self.refuses_width(info), inputs)


def raise_for(error: RequestError | None, inputs: int) -> None:
    """Raises the error, if there is one, for so many inputs."""
    if error is not None:
        error.inputs = inputs
        raise error


def embed(*, normalize: bool = True, dimensions: int | None = None) -> Task[Float32Array]:
    """The pooled vector `[dimensions]`."""

    def refuses(info: ModelInfo) -> RequestError | None:
        if normalize and info.pooling is Pooling.SPLADE:
            return ModelTypeError(NO_NORMALIZE)
        if dimensions is not None and dimensions <= 0:
            return DimensionsError("should be positive")
        return _refuses_pooled(info)

    def refuses_width(info: ModelInfo) -> RequestError | None:
        if dimensions is None or dimensions <= info.dimensions:
            return None
        return DimensionsError("should be smaller than the maximum embedding dimension.")

    def finish(row: Row) -> Float32Array:
        return vector(row.values, normalize=normalize, dimensions=dimensions)

    return Task("embed", refuses, finish, refuses_width=refuses_width)


def embed_all(info: ModelInfo, *, multi_vector: bool = False) -> Task[Float32Array]:
    """The last hidden state of each token `[n, D]`, or its vector for late interaction."""
    columns = info.columns

    def refuses(info: ModelInfo) -> RequestError | None:
        if info.pooling is Pooling.SPLADE:
            return ModelTypeError(NO_TOKENS)
        if info.sides:
            return ModelTypeError(NO_SIDES)
        if multi_vector and not info.columns.vectors:
            return ModelTypeError(NO_VECTORS)
        return _refuses_embedding(info)

    def finish(row: Row) -> Float32Array:
        if multi_vector or not columns.hidden:
            return token_vectors(row.values, columns, row.encoding)
        return hidden_states(row.values, columns)

    return Task("embed_all", refuses, finish, wants_tokens=True)


def embed_sparse(info: ModelInfo, special: Collection[int]) -> Task[Sparse]:
    """SPLADE weights, or the lexical weights of the tokens but for the `special` ones."""
    is_lexical = info.columns.weights

    def refuses(info: ModelInfo) -> RequestError | None:
        if info.pooling is Pooling.SPLADE or info.columns.weights:
            return None
        return ModelTypeError(NOT_SPLADE)

    def finish(row: Row) -> Sparse:
        return lexical_weights(row.values, row.encoding, special) if is_lexical else sparse(row.values)

    return Task("embed_sparse", refuses, finish, wants_tokens=is_lexical)


def similarity() -> Task[Float32Array]:
    """The pooled vector as it is; see `results.cosine`."""
    return Task("similarity", _refuses_pooled, lambda row: row.values)


def predict(info: ModelInfo, *, raw: bool = False) -> Task[list[Prediction]]:
    """The classes, best first; raw: with their logits."""

    def refuses(info: ModelInfo) -> RequestError | None:
        return ModelTypeError(NOT_CLASSIFIER) if info.kind is Kind.EMBEDDING else None

    return Task("predict", refuses, lambda row: predictions(row.values, info.labels, raw=raw), family="predict")


def rerank() -> Task[float]:
    """The logit of a query and a text; see `ranked`. Models for late interaction have `Matching` instead."""

    def refuses(info: ModelInfo) -> RequestError | None:
        return None if info.kind is Kind.RERANKER or is_late(info) else ModelTypeError(NOT_RERANKER)

    return Task("rerank", refuses, lambda row: float(row.values[0]), family="predict")


def ranked(logits: list[float], *, raw: bool) -> list[Rank]:
    """The texts with their scores, best first. Raises NotANumberError."""
    return ranks(np.array(logits, np.float32), raw=raw)


def is_late(info: ModelInfo) -> bool:
    """Whether the model is for late interaction alone."""
    return info.kind is Kind.EMBEDDING and not info.columns.hidden


class Pairing:
    """How a reranker ranks texts for a query: by the logit of each pair."""

    def __init__(self, query: str) -> None:
        self.task = rerank()
        self._query = query

    def inputs(self, texts: Sequence[str]) -> Sequence[Input]:
        """What the task is done with."""
        return [(self._query, text) for text in texts]

    def ranked(self, values: list[float], *, raw: bool) -> list[Rank]:
        """From what the task gave: the texts with their scores, best first. Raises NotANumberError."""
        return ranked(values, raw=raw)


class Matching:
    """How a model for late interaction does: query and texts in their roles, by `results.maxsim`. For one request."""

    def __init__(self, columns: TokenColumns, query: str) -> None:
        self.task = Task("rerank", rerank().refuses, self._finish, wants_tokens=True, family="predict", query=query)
        self._columns = columns
        self._vectors: Float32Array | None = None

    def inputs(self, texts: Sequence[str]) -> Sequence[Input]:
        """What the task is done with."""
        return texts

    def ranked(self, values: list[float], *, raw: bool) -> list[Rank]:
        """From what the task gave: the texts with their scores, best first. Raises NotANumberError."""
        assert self._vectors is not None, "the query is finished first"
        return matches(np.array(values[1:], np.float32), len(self._vectors), raw=raw)

    def _finish(self, row: Row) -> float:
        vectors = token_vectors(row.values, self._columns, row.encoding)
        if self._vectors is None:
            self._vectors = vectors
            return 0.0
        return maxsim(self._vectors, vectors)


def ranking(info: ModelInfo, query: str, options: EncodeOptions) -> Pairing | Matching:
    """How the model ranks texts. Raises ModelTypeError for one that does not, InputError for an option it does not
    have."""
    raise_for(rerank().refuses(info), 1)
    if not is_late(info):
        return Pairing(query)
    if options.prompt_name is not None:
        raise InputError(NO_PROMPT)
    return Matching(info.columns, query)


def default_task(info: ModelInfo) -> str:
    """The name of what a model is made for."""
    if info.kind is not Kind.EMBEDDING:
        return "rerank" if info.kind is Kind.RERANKER else "predict"
    if is_late(info):
        return "embed_all"
    return "embed_sparse" if info.pooling is Pooling.SPLADE else "embed"


def _refuses_embedding(info: ModelInfo) -> RequestError | None:
    return None if info.kind is Kind.EMBEDDING else ModelTypeError(NOT_EMBEDDING)


def _refuses_pooled(info: ModelInfo) -> RequestError | None:
    return _refuses_embedding(info) or (None if info.columns.hidden else ModelTypeError(NO_POOLED))
