"""The model in process, without a server: `load(path).embed(texts)`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from os import PathLike, fspath
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from .errors import RequestError
from .inference.chunks import PIECES_AT_ONCE, Distinct
from .inference.kinds import NO_VECTORS, NOT_CLASSIFIER, NOT_EMBEDDING, NOT_RERANKER, NOT_SPLADE, require
from .inference.results import Prediction, Rank, Sparse, check_positive, check_width, predictions, ranks, sparse, vector
from .inference.token_results import hidden_states, lexical_weights, token_vectors
from .loading.load import Parts, load_parts, warm_up
from .loading.open import load_engine
from .queueing.jobs import JobGroup, Row
from .queueing.runner import Runner
from .settings import BatchLimits, EngineOptions, HubOptions, ModelOptions, Settings
from .telemetry.metrics import Metrics
from .types import EncodeOptions, Encoding, Float32Array, Input, Kind, ModelInfo, Pooling

InputT = TypeVar("InputT", bound=Input)

DEFAULT = EncodeOptions()
ACCEPTED = (ModelOptions, HubOptions, EngineOptions, BatchLimits)
"""What `load` takes, by the names of their fields."""


def load(model: str | PathLike[str], **options: Any) -> Embedder:
    """Loads a model from a folder, or by its id from the Hub or its cache.

    options: those of the command line that concern a model, with underscores: `dtype="float32"`, `pooling="cls"`,
    `threads=4`, `max_batch_tokens=4096`, ... (the fields of `ACCEPTED`). Raises StartError where the model can't be
    loaded, TypeError for an option that is unknown or only a server's.
    """
    known = {declared.name for part in ACCEPTED for declared in fields(part)} - {"model_id"}
    for name in options.keys() - known:
        near = get_close_matches(name, known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
        raise TypeError(f"load() has no option {name!r}{hint}")
    if options.get("pooling") is not None:
        options["pooling"] = Pooling(options["pooling"])  # "mean" is as good as Pooling.MEAN
    settings = Settings.of(model_id=fspath(model), **{"max_queued_tokens": None} | options)
    parts = load_parts(settings)
    try:
        warm_up(parts.engine)
    except BaseException:
        parts.engine.close()
        raise
    return Embedder(parts, settings)


class Embedder:
    """A model to be called from any thread. Close it, or use it as a context manager, to give back its memory.

    Every method takes any number of inputs at once: they are sorted, cut into batches and run on all cores. Inputs that
    are too long are cut on the right unless `options` says otherwise. Raises the first unusable input's RequestError.
    """

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self.info: ModelInfo = parts.info
        self._tokenizer = parts.tokenizer
        metrics, another = Metrics(parts.info.max_input_length), partial(load_engine, parts.checkpoint, settings)
        self.runner = Runner(parts.engine, settings.limits, metrics, time.perf_counter, new_engine=another)

    def embed(
        self,
        inputs: Sequence[Input],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        options: EncodeOptions = DEFAULT,
    ) -> Float32Array:
        """The vectors, float32 `[len(inputs), dimensions]`."""
        check_positive(dimensions)
        check_width(dimensions, self.info.dimensions)
        require(self.info.kind is Kind.EMBEDDING, NOT_EMBEDDING)
        require(self.info.columns.hidden, "Model gives a vector for each token: use `embed_all`")
        rows = self._run(inputs, options)
        width = dimensions or self.info.dimensions
        if not rows:
            return np.empty((0, width), np.float32)
        return np.stack([vector(row.values, normalize=normalize, dimensions=dimensions) for row in rows])

    def embed_all(
        self, inputs: Sequence[Input], *, multi_vector: bool = False, options: EncodeOptions = DEFAULT
    ) -> list[Float32Array]:
        """The vectors of each input's tokens, float32 `[tokens, D]`, special tokens included, as they are.

        multi_vector: those for late interaction instead, of length 1 (models made for it alone always give these).
        `EncodeOptions(prompt_name="query")` and `"document"` say what the texts are.
        """
        columns = self.info.columns
        dense = self.info.kind is Kind.EMBEDDING and self.info.pooling is not Pooling.SPLADE
        require(dense, "Model is not an embedding model with token vectors")
        require(columns.vectors > 0 or not multi_vector, NO_VECTORS)
        rows = self._run(inputs, options, tokens=True)
        if multi_vector or not columns.hidden:
            return [token_vectors(row.values, columns, row.encoding) for row in rows]
        return [hidden_states(row.values, columns) for row in rows]

    def embed_sparse(self, inputs: Sequence[Input], *, options: EncodeOptions = DEFAULT) -> list[Sparse]:
        """The SPLADE weights of each input, or the lexical weights of its tokens."""
        is_splade, lexical = self.info.pooling is Pooling.SPLADE, self.info.columns.weights
        require(is_splade or lexical, NOT_SPLADE)
        if lexical:
            rows, special = self._run(inputs, options, tokens=True), self._tokenizer.special_ids
            return [lexical_weights(row.values, row.encoding, special) for row in rows]
        return [sparse(row.values) for row in self._run(inputs, options)]

    def predict(
        self, inputs: Sequence[Input], *, raw_scores: bool = False, options: EncodeOptions = DEFAULT
    ) -> list[list[Prediction]]:
        """The classes of each text or pair of texts, best first."""
        require(self.info.kind is not Kind.EMBEDDING, NOT_CLASSIFIER)
        return [predictions(row.values, self.info.labels, raw=raw_scores) for row in self._run(inputs, options)]

    def rerank(
        self, query: str, texts: Sequence[str], *, raw_scores: bool = False, options: EncodeOptions = DEFAULT
    ) -> list[Rank]:
        """The scores of the texts for the query, best first."""
        require(self.info.kind is Kind.RERANKER, NOT_RERANKER)
        rows = self._run([(query, text) for text in _several(texts)], options)
        return ranks(np.array([row.values[0] for row in rows], np.float32), raw=raw_scores)

    def close(self) -> None:
        """Waits for what is running, then gives back threads and memory."""
        self.runner.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, inputs: Sequence[Input], options: EncodeOptions, *, tokens: bool = False) -> list[Row]:
        request = Distinct(_several(inputs))
        rows: list[Row] = []
        queued: deque[tuple[JobGroup, threading.Event]] = deque()

        def receive() -> None:
            group, done = queued[0]
            done.wait()
            rows.extend(group.results())
            queued.popleft()

        try:
            for piece in request.pieces():
                encodings = _usable(self._tokenizer.encode(piece.inputs, options))
                if len(queued) == PIECES_AT_ONCE:
                    receive()
                done = threading.Event()
                ahead = sum(group.length for group, _ in queued)
                queued.append((JobGroup(encodings, tokens=tokens, on_done=done.set, ahead=ahead), done))
                self.runner.submit(queued[-1][0])
            while queued:
                receive()
        except BaseException:  # an unusable input, or Ctrl-C: or all the rest would still be run
            for group, _ in queued:
                self.runner.cancel(group)
            raise
        return request.spread(rows)


def _usable(results: Sequence[Encoding | RequestError]) -> list[Encoding]:
    """Raises the first error there is."""
    encodings = []
    for result in results:
        if isinstance(result, RequestError):
            raise result
        encodings.append(result)
    return encodings


def _several(inputs: Sequence[InputT]) -> Sequence[InputT]:
    """Raises TypeError for a single text, which is a sequence too: of its characters."""
    if isinstance(inputs, str):
        raise TypeError("a list of inputs is expected, not a single text")
    return inputs
