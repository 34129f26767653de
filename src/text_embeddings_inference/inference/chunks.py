"""A request cut into chunks, its repeated inputs taken once.

Chunks are tokenized and queued one after another: however large a request is, only so much of it is in memory as
encodings, and only so long it keeps the event loop and the queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..queueing.jobs import JobGroup, Row
from ..types import EncodeOptions, Input, Timings, Usage

T = TypeVar("T")

CHUNK_INPUTS = 256
"""Inputs of a chunk: enough that those of like length fill batches."""
CHUNK_CHARACTERS = 1 << 18
"""Characters of a chunk, unless it is a single input: tokenized in about 0.1 s, 10 MB while that lasts."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Inputs that all differ."""

    inputs: Sequence[Input]
    copies: Sequence[int]
    """How many inputs of the request each of them stands for."""
    places: Sequence[int]
    """Where each of them stands in the request for the first time."""
    role: str | None = None
    """In which they are taken, in late interaction; None: in that of the request."""

    def options(self, options: EncodeOptions) -> EncodeOptions:
        """How they become tokens, of the options for the request."""
        return options if self.role is None else replace(options, prompt_name=self.role)


class Distinct:
    """The inputs of a request, each once.

    In the order of their first places, so the first of them that can't be used is the request's first. With a query
    they are its documents, and it comes after them, as one input more.
    """

    def __init__(self, inputs: Sequence[Input], query: str | None = None) -> None:
        self._query = query
        self._role = None if query is None else "document"
        numbers: dict[str | tuple[str, str] | tuple[int, ...], int] = {}
        self.inputs: list[Input] = []
        self._numbers: list[int] = []
        self._copies: list[int] = []
        self._places: list[int] = []
        for place, item in enumerate(inputs):
            number = numbers.setdefault(tuple(item) if isinstance(item, list) else item, len(numbers))
            if number == len(self.inputs):
                self.inputs.append(item)
                self._copies.append(0)
                self._places.append(place)
            self._numbers.append(number)
            self._copies[number] += 1

    def spread(self, answers: Sequence[T]) -> list[T]:
        """The answer to the query, if there is one, then for each input of the request that to the one that stands for
        it."""
        return [*answers[len(self.inputs) :], *(answers[number] for number in self._numbers)]

    def chunks(self) -> Iterator[Chunk]:
        """All of them, cut so that no chunk is too large."""
        start = characters = 0
        for end, item in enumerate(self.inputs):
            size = sum(map(len, item)) if isinstance(item, tuple) else len(item)
            if end > start and (end - start == CHUNK_INPUTS or characters + size > CHUNK_CHARACTERS):
                yield self._chunk(start, end)
                start, characters = end, 0
            characters += size
        if self.inputs:
            yield self._chunk(start, len(self.inputs))
        if self._query is not None:
            yield Chunk([self._query], [1], [len(self._numbers)], "query")

    def _chunk(self, start: int, end: int) -> Chunk:
        return Chunk(self.inputs[start:end], self._copies[start:end], self._places[start:end], self._role)


class Tally:
    """What a request has cost so far: every input counts, also those that were answered by another's row."""

    def __init__(self) -> None:
        self._inputs = 0
        self._characters = 0
        self._tokens = 0
        self._tokenization = 0.0
        self._queue = 0.0
        self._inference = 0.0

    def add(self, group: JobGroup, rows: Sequence[Row], *, tokenization: float, waited: float) -> None:
        """A chunk was answered. tokenization: seconds it took; waited: seconds it was neither tokenized nor queued."""
        for encoding, times, row in zip(group.encodings, group.copies, rows, strict=True):
            self._inputs += times
            self._characters += times * encoding.characters
            self._tokens += times * len(encoding)
            self._tokenization += times * tokenization
            self._queue += times * (row.queue + waited)
            self._inference += times * row.inference

    def usage(self) -> Usage:
        count = max(1, self._inputs)
        timings = Timings(self._tokenization / count, self._queue / count, self._inference / count)
        return Usage(self._characters, self._tokens, timings)
