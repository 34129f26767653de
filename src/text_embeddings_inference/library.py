"""The model in process, without a server: `load(path).embed(texts)`."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import fields
from difflib import get_close_matches
from os import PathLike, fspath
from typing import Any, TypeVar

import numpy as np

from .errors import RequestError
from .inference import tasks
from .inference.request import ChunkedRequest
from .inference.results import Prediction, Rank, Sparse, vector
from .inference.tasks import Task
from .loading.load import Parts, load_parts, warm_up
from .loading.open import open_model
from .queueing.jobs import Row
from .queueing.runner import Runner, end
from .settings import BatchLimits, EngineOptions, HubOptions, ModelOptions, Settings, command_line, hub_variables
from .telemetry.metrics import Metrics
from .types import EncodeOptions, Float32Array, Input, ModelInfo

T = TypeVar("T")

LONGEST_SHOWN = 40
"""Characters of a value that an error shows."""
DEFAULT = EncodeOptions()
ACCEPTED = (ModelOptions, HubOptions, EngineOptions, BatchLimits)
"""What `load` takes, by the names of their fields."""


def load(model: str | PathLike[str], **options: Any) -> Embedder:
    """Loads a model from a folder, or by its id from the Hub or its cache.

    options: those of the command line that concern a model, with underscores: `dtype="float32"`, `pooling="cls"`,
    `threads=4`, `max_batch_tokens=4096`, ... (the fields of `ACCEPTED`); a text means what it means there, as
    `streams="auto"`. Raises StartError where the model can't be loaded, TypeError for an option that is unknown or only
    a server's and for a value of a wrong type, ValueError for a value that is not allowed.
    """
    known = {declared.name for part in ACCEPTED for declared in fields(part)} - {"model_id"}
    for name in options.keys() - known:
        raise TypeError(f"load() has no option {name!r}{_instead(name, known)}")
    given = hub_variables(os.environ)
    if "hf_home" in options:
        given.pop("huggingface_hub_cache", None)  # it is in there
    settings = Settings.of(model_id=fspath(model), **{"max_queued_tokens": None} | given | options)
    with open_model(settings) as opened:
        parts = load_parts(opened)
        warm_up(parts.engine)
        return Embedder(parts, settings.limits)


def _instead(name: str, known: Set[str]) -> str:
    """What to do about an unknown option."""
    declared = command_line().options
    if name in declared and name != "model_id":
        return ": it is a server's"
    shown = sorted(known - {other for other, option in declared.items() if option.hidden})
    near = get_close_matches(name, shown, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(shown)}"


class Embedder:
    """A model to be called from any thread. Close it, or use it as a context manager, to give back its memory; what is
    not closed is closed when it is dropped, or when the interpreter ends.

    A child of `os.fork` has none of its threads: there every method raises InferenceError, and `close` does nothing.

    Every method takes any number of inputs at once: they are sorted, cut into batches and run on all cores. Inputs that
    are too long are cut on the right unless `options` says otherwise. Raises the first unusable input's RequestError.
    """

    def __init__(self, parts: Parts, limits: BatchLimits) -> None:
        """Takes the parts' engine, which is ready."""
        self.info: ModelInfo = parts.info
        self._tokenizer = parts.tokenizer
        metrics = Metrics(parts.info.max_input_length)
        self.runner = Runner(parts.engine, limits, metrics, time.perf_counter, new_engine=parts.another_engine)
        self._at_exit = weakref.finalize(self, end, self.runner)

    def embed(
        self,
        inputs: Sequence[Input],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        options: EncodeOptions = DEFAULT,
    ) -> Float32Array:
        """The vectors, float32 `[len(inputs), dimensions]`."""
        task = tasks.embed(normalize=False, dimensions=dimensions)
        rows = self._answer(task, inputs, options)  # normalized here: servers refuse to do that to what SPLADE gives
        if not rows:
            return np.empty((0, dimensions or self.info.dimensions), np.float32)
        return np.stack([vector(row, normalize=normalize, dimensions=dimensions) for row in rows])

    def embed_all(
        self, inputs: Sequence[Input], *, multi_vector: bool = False, options: EncodeOptions = DEFAULT
    ) -> list[Float32Array]:
        """The vectors of each input's tokens, float32 `[tokens, D]`, special tokens included, as they are.

        multi_vector: those for late interaction instead, of length 1 (models made for it alone always give these).
        `EncodeOptions(prompt_name="query")` and `"document"` say what the texts are.
        """
        return self._answer(tasks.embed_all(self.info, multi_vector=multi_vector), inputs, options)

    def embed_sparse(self, inputs: Sequence[Input], *, options: EncodeOptions = DEFAULT) -> list[Sparse]:
        """The SPLADE weights of each input, or the lexical weights of its tokens."""
        return self._answer(tasks.embed_sparse(self.info, self._tokenizer.special_ids), inputs, options)

    def predict(
        self, inputs: Sequence[Input], *, raw_scores: bool = False, options: EncodeOptions = DEFAULT
    ) -> list[list[Prediction]]:
        """The classes of each text or pair of texts, best first."""
        return self._answer(tasks.predict(self.info, raw=raw_scores), inputs, options)

    def rerank(
        self, query: str, texts: Sequence[str], *, raw_scores: bool = False, options: EncodeOptions = DEFAULT
    ) -> list[Rank]:
        """The scores of the texts for the query, best first."""
        if not isinstance(query, str):
            raise TypeError(f"`query` must be a text, not {_short(query)}")
        several(texts, "texts")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"`texts[{place}]` must be a text, not {_short(text)}")
        ranking = tasks.ranking(self.info, query, options)
        values = self._answer(ranking.task, ranking.inputs(texts), options, "texts")
        return ranking.ranked(values, raw=raw_scores)

    def close(self) -> None:
        """Waits for what is running, then gives back threads and memory."""
        if not self.runner.is_forked:
            self.runner.close()
        self._at_exit.detach()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, task: Task[T], inputs: Sequence[Input], options: EncodeOptions, field: str = "inputs") -> list[T]:
        """field: what the inputs are called where one is at fault."""
        self.runner.check_process()
        task.check(self.info, len(several(inputs, field)))
        for place, item in enumerate(inputs):
            check_input(item, f"{field}[{place}]")
        try:
            return [task.finish(row) for row in self._drive(ChunkedRequest(inputs, task), options)]
        except RequestError as error:
            if error.index is not None:
                where = f"{field}[{error.index}]" if error.index < len(inputs) else "query"
                error.args = (f"{error} - at `{where}`",)
            raise

    def _drive(self, request: ChunkedRequest[threading.Event], options: EncodeOptions) -> list[Row]:
        """While one chunk runs, the next is tokenized. What fails, or is interrupted, takes back what it has queued."""
        try:
            while (chunk := request.next_chunk()) is not None:
                request.encoded(self._tokenizer.encode(chunk.inputs, chunk.options(options)))
                request.check_width(self.info)
                if request.is_full:
                    request.first.wait()
                    request.received()
                done = threading.Event()
                self.runner.submit(request.queue(done, done.set))
            while not request.is_done:
                request.first.wait()
                request.received()
        except BaseException:
            for group in request.groups:
                self.runner.cancel(group)
            raise
        return request.result()[0]


def several(items: Sequence[T], field: str) -> Sequence[T]:
    """Raises TypeError for what is no list, and for a single text, which is a sequence too: of its characters."""
    if isinstance(items, str):
        raise TypeError(f"`{field}` must be a list, not a single text")
    if not isinstance(items, Collection) or isinstance(items, bytes | Mapping | Set):
        raise TypeError(f"`{field}` must be a list, not {_short(items)}")
    return items


def check_input(item: object, place: str) -> None:
    """Raises TypeError for what is neither a text, a pair of texts nor a list of token ids."""
    match item:
        case str():
            return
        case (str(), str()) if isinstance(item, tuple):
            return
        case list() if all(isinstance(id_, int | np.integer) for id_ in item):
            return
    raise TypeError(f"`{place}` must be a text, a pair of texts (a tuple) or a list of token ids, not {_short(item)}")


def _short(value: object) -> str:
    """The value, or its type where that is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"a {type(value).__name__}"
