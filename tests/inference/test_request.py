"""A request's way, step by step, without tokenizer, engine, loop or thread."""

from __future__ import annotations

import numpy as np
import pytest

from text_embeddings_inference.errors import EmptyInputError, InferenceError, InputError, RequestError
from text_embeddings_inference.inference import chunks, tasks
from text_embeddings_inference.inference.request import CHUNKS_QUEUED, ChunkedRequest
from text_embeddings_inference.queueing.jobs import JobGroup, Row
from text_embeddings_inference.types import Encoding, Input, Timings


@pytest.fixture(autouse=True)
def two_inputs_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_INPUTS", 2)


def request_of(*inputs: Input, start: float = 0.0) -> ChunkedRequest[str]:
    return ChunkedRequest(inputs, tasks.embed(), start)


def encoding(length: int) -> Encoding:
    return Encoding(np.ones(length, np.int32), None, length)


def queue_all(request: ChunkedRequest[str], *lengths: int) -> list[JobGroup]:
    """Takes the chunks one after another, and queues them as if they were tokenized."""
    groups, left = [], list(lengths)
    while (chunk := request.next_chunk()) is not None:
        request.encoded([encoding(left.pop(0)) for _ in chunk.inputs])
        groups.append(request.queue(f"chunk {len(groups)}", lambda: None))
    return groups


def answer(group: JobGroup, *results: float | InferenceError) -> None:
    for job, result in zip(group.jobs(0), results, strict=True):
        row = result if isinstance(result, InferenceError) else Row(job.encoding, np.full(2, result, np.float32), 1, 2)
        group.deliver(job, row)


def test_rows_and_costs_of_every_input() -> None:
    request = request_of("a", "b", "a", "c")
    first, second = queue_all(request, 3, 5, 7)
    assert request.is_full
    assert CHUNKS_QUEUED == 2
    assert [(group.copies, group.length) for group in (first, second)] == [([2, 1], 8), ([1], 7)]
    assert [job.ahead for job in (*first.jobs(0), *second.jobs(0))] == [0, 3, 8]
    answer(first, 1, 2)
    answer(second, 3)
    for expected in ("chunk 0", "chunk 1"):
        assert not request.is_done
        assert request.first == expected
        request.received()
    assert request.is_done
    rows, usage = request.result()
    assert [row.values[0] for row in rows] == [1, 2, 1, 3]
    assert (usage.characters, usage.tokens) == (18, 18)
    assert usage.timings == Timings(0, 2, 1)


def test_times_that_are_told() -> None:
    request = request_of("a", "b", "c", start=10)
    request.next_chunk()
    assert request.encoded([encoding(1), encoding(2)], 11) == [1, 2]
    answer(request.queue("first", lambda: None, 13), 1, 1)
    request.next_chunk()
    request.encoded([encoding(1)], 14)
    answer(request.queue("second", lambda: None, 14.5), 1)
    request.received()
    request.received()
    assert request.result()[1].timings == Timings(1, 2 + (2 + 2 + 3.5) / 3, 1)


def test_an_error_of_tokenization_stands_for_all_inputs_that_have_one() -> None:
    request = request_of("a", "b", "", "c", "", "d" * 9)
    request.next_chunk()
    request.encoded([encoding(1), encoding(1)])
    request.queue("first", lambda: None)
    chunk = request.next_chunk()
    assert chunk is not None
    assert chunk.inputs == ["", "c"]
    results: list[Encoding | RequestError] = [EmptyInputError(), InputError("too long")]
    with pytest.raises(EmptyInputError) as caught:
        request.encoded(results)
    assert (caught.value.inputs, caught.value.index) == (3, 2)
    assert len(request.groups) == 1, "what is to be cancelled"


def test_an_error_of_the_engine_stands_for_all_inputs_that_have_one() -> None:
    request = request_of("a", "b", "b", "c", "c", "c")
    first, second = queue_all(request, 1, 1, 1)
    answer(second, InferenceError("no engine"))
    answer(first, 1, InferenceError("no engine"))
    with pytest.raises(InferenceError) as caught:
        request.received()
    assert (caught.value.inputs, caught.value.index) == (2 + 3, 1)
    assert request.groups == [first, second]


def test_no_inputs() -> None:
    request = request_of()
    assert request.next_chunk() is None
    assert request.is_done
    rows, usage = request.result()
    assert (rows, usage.tokens, usage.timings) == ([], 0, Timings(0, 0, 0))
