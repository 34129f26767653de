"""A request from its inputs to its rows, without clock, loop or thread: a server and a library drive it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import InferenceError, RequestError
from ..queueing.jobs import JobGroup, Row
from ..telemetry.tracing import Trace
from ..types import Encoding, Input, ModelInfo, Usage
from .chunks import Chunk, Distinct, Tally
from .tasks import Task

T = TypeVar("T")
W = TypeVar("W")

CHUNKS_QUEUED = 2
"""Chunks of one request that are in the queue: one that runs, and one so that the next batch is there."""


@dataclass(frozen=True, slots=True)
class _Queued(Generic[W]):
    """A chunk in the queue."""

    chunk: Chunk
    group: JobGroup
    done: W
    tokenization: float
    """Seconds it took to tokenize it."""
    waited: float
    """Seconds it was neither tokenized nor queued."""


class ChunkedRequest(Generic[W]):
    """One request. Whoever drives it does this for every `next_chunk`:

    tokenize it, hand the results to `encoded`; where the request `is_full`, wait for the `first` queued chunk and take
    its rows by `received`; `queue` what was encoded, and submit it. Then it waits and receives until the request
    `is_done`. After an error of any kind, what is queued is to be cancelled: the `groups`.

    W: what a driver waits on for a chunk's answer: a future, an event.
    """

    def __init__(
        self, inputs: Sequence[Input], task: Task[Any], start: float = 0.0, trace: Trace | None = None
    ) -> None:
        """start: when the request's time began."""
        self._distinct = Distinct(inputs, task.query)
        self._chunks = self._distinct.chunks()
        self._count = len(inputs)
        self._task = task
        self._start = self._began = start
        self._trace = trace
        self._tokenization = 0.0
        self._encodings: list[Encoding] = []
        self._chunk: Chunk | None = None
        self._queued: deque[_Queued[W]] = deque()
        self._rows: list[Row] = []
        self._tally = Tally()

    def next_chunk(self) -> Chunk | None:
        """What is to be tokenized next; None: nothing any more."""
        self._chunk = next(self._chunks, None)
        return self._chunk

    def encoded(self, results: Sequence[Encoding | RequestError], now: float = 0.0) -> list[int]:
        """The chunk was tokenized: the tokens of every input that it stands for.

        Raises the first input's RequestError, if there is one, for all that have one.
        """
        chunk = self._current()
        self._encodings = usable(results, chunk)
        self._tokenization = now - self._began
        if self._trace is not None:
            self._trace.tokenized(self._began, now)
        copies = zip(self._encodings, chunk.copies, strict=True)
        return [length for encoding, times in copies for length in [len(encoding)] * times]

    def check_width(self, info: ModelInfo) -> None:
        """Raises the RequestError of a vector that is to be wider than the model's."""
        self._task.check_width(info, self._count)

    @property
    def is_full(self) -> bool:
        return len(self._queued) == CHUNKS_QUEUED

    def queue(self, done: W, on_done: Callable[[], object], now: float = 0.0) -> JobGroup:
        """What is to be submitted. on_done: called by a thread when it is answered."""
        chunk = self._current()
        ahead = sum(earlier.group.length for earlier in self._queued)
        group = JobGroup(
            self._encodings, tokens=self._task.wants_tokens, on_done=on_done, copies=chunk.copies, ahead=ahead
        )
        waited = now - self._start - self._tokenization
        self._queued.append(_Queued(chunk, group, done, self._tokenization, waited))
        self._began = now
        return group

    @property
    def is_done(self) -> bool:
        """Whether nothing is queued."""
        return not self._queued

    @property
    def first(self) -> W:
        """What to wait on for the first queued chunk."""
        return self._queued[0].done

    @property
    def groups(self) -> list[JobGroup]:
        """What is in the queue."""
        return [queued.group for queued in self._queued]

    def received(self) -> None:
        """The first queued chunk was answered. Raises the first input's InferenceError, if there is one."""
        first = self._queued[0]
        try:
            rows = first.group.results()
        except InferenceError as error:
            error.index = None if error.index is None else first.chunk.places[error.index]
            error.inputs = sum(queued.group.failed for queued in self._queued)
            raise
        self._tally.add(first.group, rows, tokenization=first.tokenization, waited=first.waited)
        self._rows += rows
        self._queued.popleft()
        if self._trace is not None:
            self._trace.ran((row.batch, row.queue) for row in rows)

    def result(self) -> tuple[list[Row], Usage]:
        """The row of the task's query, if it has one, then that of each input, and what they cost together."""
        return self._distinct.spread(self._rows), self._tally.usage()

    def _current(self) -> Chunk:
        assert self._chunk is not None, "a chunk is taken before it is encoded and queued"
        return self._chunk


def usable(results: Sequence[T | RequestError], chunk: Chunk | None = None) -> list[T]:
    """The results. Raises the first input's RequestError, if there is one, for all that have one.

    chunk: of the inputs; None: they are all there are, and all differ.
    """
    failed = [number for number, result in enumerate(results) if isinstance(result, RequestError)]
    if failed:
        error = results[failed[0]]
        assert isinstance(error, RequestError)
        error.inputs = len(failed) if chunk is None else sum(chunk.copies[number] for number in failed)
        error.index = failed[0] if chunk is None else chunk.places[failed[0]]
        raise error
    return [result for result in results if not isinstance(result, RequestError)]
