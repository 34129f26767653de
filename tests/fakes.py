"""Stand-ins for what is slow or random: an engine whose vectors tell what they were made of, a tokenizer whose texts
are their own token ids, a clock that is set by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from text_embeddings_inference import Embedder
from text_embeddings_inference.engines.base import Capacity
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.loading.load import Parts
from text_embeddings_inference.settings import BatchLimits, Limits
from text_embeddings_inference.telemetry.metrics import Metrics
from text_embeddings_inference.tokenization import TextOptions, Tokenizer
from text_embeddings_inference.types import (
    Batch,
    EncodeOptions,
    Encoding,
    Float32Array,
    Kind,
    ModelInfo,
    Output,
    Pooling,
)

VOCABULARY = 100
MAX_INPUT_LENGTH = 16
PROMPTS = {"query": "1 ", "passage": "2 3 "}
OPTIONS = EncodeOptions()
PATIENCE = 10
"""Seconds after which a wait for another thread fails."""


def pooled_vector(ids: list[int], dimensions: int) -> Float32Array:
    """What `FakeEngine` gives for an input: its length, the sum of its ids, then that sum weighted by place."""
    places = np.arange(1, len(ids) + 1)
    values = [len(ids), sum(ids)] + [int(np.dot(places**power, ids)) % 1009 for power in range(1, dimensions)]
    return np.array(values[:dimensions], np.float32)


def token_vectors(ids: list[int], dimensions: int) -> Float32Array:
    """What `FakeEngine` gives for its tokens, `[n, dimensions]`: id + place / 100, then that times 2, 3, ..."""
    first = np.array(ids, np.float32) + np.arange(len(ids), dtype=np.float32) / 100
    return np.outer(first, np.arange(1, dimensions + 1)).astype(np.float32)


@dataclass(frozen=True)
class Ran:
    """A batch that the engine was given."""

    inputs: list[list[int]]
    tokens: bool
    cores: int | None
    thread: str


class FakeEngine:
    """An `Engine` that computes `pooled_vector` and `token_vectors`, and fails or waits as it is told.

    bad_ids: a batch with one of these raises RuntimeError; nan_ids: the vectors of an input with one of these are NaN;
    zero_ids: they are zeros; on_run: called with each batch before it is computed, may raise. `batches` holds what ran.
    """

    vocabulary = VOCABULARY

    def __init__(
        self,
        *,
        dimensions: int = 4,
        streams: int = 1,
        batch_tokens: int = 64,
        packed: bool = False,
        on_run: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self.dimensions = dimensions
        self.cores = 8
        self.capacity = Capacity(streams, batch_tokens)
        self.longest = MAX_INPUT_LENGTH
        self.trials: tuple[int, ...] = ()
        self.bad_ids: set[int] = set()
        self.nan_ids: set[int] = set()
        self.zero_ids: set[int] = set()
        self.on_run = on_run
        self.batches: list[Ran] = []
        self.closed = 0
        self._packed = packed
        self._allowed: float = float("inf")  # batches that may run, of all that ever come
        self._changed = threading.Condition()

    def hold(self) -> None:
        """From now on batches wait inside, in order, until `let` lets them run."""
        with self._changed:
            self._allowed = len(self.batches)

    def let(self, batches: float = float("inf")) -> None:
        """Lets so many batches more run; without a number all, from now on."""
        with self._changed:
            self._allowed += batches
            self._changed.notify_all()

    def wait_for(self, batches: int) -> None:
        """Waits until so many batches have come in, in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= batches, PATIENCE), f"only {self.batches} came"

    def arrange(self, encodings: list[Encoding]) -> Batch:
        return Batch.pack(encodings) if self._packed else Batch.pad(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return tokens if self._packed else longest * count

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        inputs = _inputs(batch)
        with self._changed:
            number = len(self.batches)
            self.batches.append(Ran(inputs, tokens, cores, threading.current_thread().name))
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: number < self._allowed, PATIENCE), "nobody let the batch run"
        self.on_run(batch)
        for ids in inputs:
            if self.bad_ids.intersection(ids):
                raise RuntimeError(f"bad input {ids}")
        pooled = np.stack([self._special(pooled_vector(ids, self.dimensions), ids) for ids in inputs])
        return Output(pooled, self._hidden(batch, inputs) if tokens else None)

    def prepare(self, streams: int) -> None:
        """There is nothing to compile."""

    def close(self) -> None:
        self.closed += 1

    def _special(self, values: Float32Array, ids: list[int]) -> Float32Array:
        if self.nan_ids.intersection(ids):
            return np.full_like(values, np.nan)
        return np.zeros_like(values) if self.zero_ids.intersection(ids) else values

    def _hidden(self, batch: Batch, inputs: list[list[int]]) -> Float32Array:
        each = [token_vectors(ids, self.dimensions) for ids in inputs]
        if batch.is_packed:
            return np.concatenate(each)
        hidden = np.full((*batch.input_ids.shape, self.dimensions), -1, np.float32)  # -1: padding that must not be seen
        for row, vectors in enumerate(each):
            hidden[row, : len(vectors)] = vectors
        return hidden


def _inputs(batch: Batch) -> list[list[int]]:
    """The ids of each sequence of a batch, without padding."""
    if batch.is_packed:
        parts = np.split(batch.input_ids, batch.lengths.cumsum()[:-1])
        return [part.tolist() for part in parts]
    return [row[:length].tolist() for row, length in zip(batch.input_ids, batch.lengths, strict=True)]


class FakeClock:
    """Seconds that pass only when `advance` is called."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def fake_tokenizer(**changes: Any) -> Tokenizer:
    """Texts are numbers with blanks between them, and those are their ids: no special tokens. Other words are id 0."""
    words = tokenizers.Tokenizer(models.WordLevel({str(id_): id_ for id_ in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    arguments: dict[str, Any] = {"max_input_length": MAX_INPUT_LENGTH, "prompts": PROMPTS, "vocabulary": VOCABULARY}
    return Tokenizer(words, TextOptions(**(arguments | changes)))


def fake_info(kind: Kind = Kind.EMBEDDING, pooling: Pooling | None = Pooling.MEAN, **changes: Any) -> ModelInfo:
    """What is known of a model of `FakeEngine`; classifiers have 4 labels, rerankers 1."""
    labels: tuple[str, ...] = ()
    if kind is not Kind.EMBEDDING:
        labels = ("a", "b", "c", "d") if kind is Kind.CLASSIFIER else ("LABEL_0",)
        pooling = None
    known: dict[str, Any] = {
        "model_id": "fake/model",
        "revision": None,
        "served_name": "fake/model",
        "kind": kind,
        "pooling": pooling,
        "labels": labels,
        "label_ids": {label: number for number, label in enumerate(labels)},
        "dtype": "float32",
        "engine": "fake",
        "architecture": "bert",
        "dimensions": len(labels) or 4,
        "vocabulary": VOCABULARY,
        "max_input_length": MAX_INPUT_LENGTH,
    }
    return ModelInfo(**(known | changes))


def fake_parts(
    engine: FakeEngine, *, info: ModelInfo | None = None, tokenizer: Tokenizer | None = None, **more: Any
) -> Parts:
    """What a model of a fake engine is made of. more: other fields of `Parts`."""
    return Parts(info or fake_info(), tokenizer or fake_tokenizer(), engine, **more)


def fake_model(
    engine: FakeEngine | None = None,
    *,
    info: ModelInfo | None = None,
    tokenizer: Tokenizer | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    **arguments: Any,
) -> Model:
    """A `Model` on a fake engine. Close it, or its threads stay."""
    info = info or fake_info()
    parts = fake_parts(engine or FakeEngine(dimensions=info.dimensions), info=info, tokenizer=tokenizer)
    return Model(parts, limits or Limits(), metrics=metrics or Metrics(info.max_input_length), **arguments)


def fake_embedder(engine: FakeEngine, info: ModelInfo | None = None, **options: Any) -> Embedder:
    """An `Embedder` on a fake engine; options: limits of a batch."""
    return Embedder(fake_parts(engine, info=info), BatchLimits(**options))


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that another thread is about to do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)
