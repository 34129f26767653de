"""Requests in chunks: what is cut where, repeated inputs taken once, and large requests beside small ones."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import run, serving, started

from tests.fakes import OPTIONS, FakeClock, FakeEngine, fake_tokenizer, pooled_vector, token_vectors
from text_embeddings_inference.errors import EmptyInputError, InferenceError
from text_embeddings_inference.inference import chunks
from text_embeddings_inference.inference.chunks import CHUNK_CHARACTERS, CHUNK_INPUTS, Distinct
from text_embeddings_inference.inference.request import CHUNKS_QUEUED
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import EncodeOptions, Input, Timings

LARGE = Limits(max_client_batch_size=5000, max_concurrent_requests=5000)

INPUTS: st.SearchStrategy[Input] = st.one_of(
    st.text("ab", max_size=2),
    st.lists(st.integers(0, 2), max_size=2),
    st.tuples(st.text("ab", max_size=1), st.text("ab", max_size=1)),
)


def distinct_texts(count: int) -> list[Input]:
    """So many different inputs of one to three tokens."""
    return [
        " ".join(f"{number:06}"[place : place + 2].lstrip("0") or "0" for place in (0, 2, 4)) for number in range(count)
    ]


def ids_of(text: Input) -> list[int]:
    assert isinstance(text, str)
    return [int(word) for word in text.split()]


# --- cutting ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(st.lists(INPUTS, max_size=30))
def test_every_input_has_the_answer_of_its_like(inputs: list[Input]) -> None:
    request = Distinct(inputs)
    found = list(request.chunks())
    taken = [item for chunk in found for item in chunk.inputs]
    assert all(item not in taken[:place] for place, item in enumerate(taken))
    assert request.spread(taken) == inputs
    copies = [times for chunk in found for times in chunk.copies]
    assert copies == [sum(item == other and type(item) is type(other) for other in inputs) for item in taken]


def test_a_text_and_its_ids_and_a_pair_are_not_alike() -> None:
    inputs: list[Input] = ["ab", ("a", "b"), [1, 2], "1", [1]]
    assert Distinct(inputs).inputs == inputs


def test_chunks_have_a_limit_of_inputs_and_of_characters() -> None:
    inputs: list[Input] = [str(number) for number in range(2 * CHUNK_INPUTS + 1)]
    assert [len(chunk.inputs) for chunk in Distinct(inputs).chunks()] == [CHUNK_INPUTS, CHUNK_INPUTS, 1]
    half = "a" * (CHUNK_CHARACTERS // 2)
    long: list[Input] = [half, (half[1:], "b"), half + "c", half * 2 + "d", "e"]
    assert [len(chunk.inputs) for chunk in Distinct(long).chunks()] == [2, 1, 1, 1]


def test_nothing_has_no_chunks() -> None:
    assert list(Distinct([]).chunks()) == []


# --- repeated inputs --------------------------------------------------------------------------------------------------


def test_a_query_comes_after_its_documents_and_is_answered_first() -> None:
    request = Distinct(["a", "b", "a"], query="a")
    documents, query = request.chunks()
    assert (documents.inputs, documents.copies, documents.places, documents.role) == (
        ["a", "b"],
        [2, 1],
        [0, 1],
        "document",
    )
    assert (query.inputs, query.copies, query.places, query.role) == (["a"], [1], [3], "query")
    assert request.spread(["A", "B", "Q"]) == ["Q", "A", "B", "A"]
    how = EncodeOptions(truncate=False)
    assert query.options(how) == EncodeOptions(truncate=False, prompt_name="query")
    assert next(Distinct(["a"]).chunks()).options(how) is how


def test_a_repeated_text_is_computed_once_and_counts_every_time() -> None:
    async def test() -> None:
        async with serving(clock=lambda: 0.0) as served:
            answer = await served.model.embed(["1", "2 3", "1", [1], "1"], OPTIONS, normalize=False)
            expected = [pooled_vector(ids, 4) for ids in ([1], [2, 3], [1], [1], [1])]
            np.testing.assert_array_equal(answer.value, expected)
            assert sorted(ids for ran in served.engine.batches for ids in ran.inputs) == [[1], [1], [2, 3]]
            assert (answer.usage.characters, answer.usage.tokens) == (3 + 3 + 1, 3 + 2 + 1)
            counted = {
                "te_embed_count": 5,
                "te_embed_success": 5,
                "te_request_input_length_count": 5,
                "te_request_input_length_sum": 6,
                "te_embed_duration_count": 5,
                "te_batch_next_size_sum": 3,
            }
            assert served.metrics(*counted) == counted

    run(test())


def test_token_vectors_and_permits_of_a_repeated_text() -> None:
    async def test() -> None:
        async with serving(limits=Limits(max_concurrent_requests=3)) as served:
            served.engine.hold()
            asked = await started(served.model.embed_all(["7 8"] * 3, OPTIONS))
            assert served.model.permits.free == 0
            served.engine.let()
            for found in (await asked).value:
                np.testing.assert_array_equal(found, token_vectors([7, 8], 4))

    run(test())


def test_failures_of_a_repeated_text_count_every_time() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.bad_ids = {13}
            with pytest.raises(InferenceError):
                await served.model.embed(["13", "1", "13"], OPTIONS)
            with pytest.raises(EmptyInputError):
                await served.model.embed(["1", "", "", ""], OPTIONS)
            served.engine.hold()
            first = await started(served.model.embed(["1"], OPTIONS))
            served.engine.wait_for(4)
            left = await started(served.model.embed(["2"] * 4, OPTIONS))
            left.cancel()
            await asyncio.wait([left])
            served.engine.let()
            await first
            assert served.failures() == {"inference": 2, "tokenization": 3, "dropped": 4}

    run(test())


# --- large requests ---------------------------------------------------------------------------------------------------


def test_a_large_request_is_tokenized_and_queued_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 texts, while the engine stands still, two chunks are queued and one more tokenized."""
    tokenizer = fake_tokenizer()
    threads: list[str] = []
    encode = tokenizer.encode

    def recorded(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return encode(*arguments)

    monkeypatch.setattr(tokenizer, "encode", recorded)

    async def test() -> None:
        async with serving(tokenizer=tokenizer, limits=LARGE) as served:
            served.engine.hold()
            inputs = distinct_texts(2000)
            large = asyncio.create_task(served.model.embed(inputs, OPTIONS, normalize=False))
            while len(threads) < CHUNKS_QUEUED + 1:
                await asyncio.sleep(0.001)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(threads) == CHUNKS_QUEUED + 1
            assert all(name.startswith("tokenizer") for name in threads), "not on the event loop"
            assert served.metrics("te_queue_size")["te_queue_size"] <= CHUNKS_QUEUED * CHUNK_INPUTS
            served.engine.let()
            answer = await large
            np.testing.assert_array_equal(answer.value, [pooled_vector(ids_of(text), 4) for text in inputs])
            assert answer.usage.tokens == sum(len(ids_of(text)) for text in inputs)

    run(test())


def test_a_text_alone_does_not_wait_for_a_large_request() -> None:
    async def test() -> None:
        async with serving(limits=LARGE) as served:
            served.engine.hold()
            large = asyncio.create_task(served.model.embed(distinct_texts(2000), OPTIONS))
            while served.metrics("te_queue_size").get("te_queue_size", 0) < CHUNK_INPUTS:
                await asyncio.sleep(0.001)
            served.engine.wait_for(1)
            alone = await started(served.model.embed([[7] * 16], OPTIONS))
            served.engine.let()
            await alone
            await large
            place = next(place for place, ran in enumerate(served.engine.batches) if [7] * 16 in ran.inputs)
            assert place <= 2, "after the batch that ran and the one that was formed ahead"
            assert len(served.engine.batches) > 50

    run(test())


def test_closing_answers_all_of_a_large_request() -> None:
    async def test() -> None:
        async with serving(limits=LARGE) as served:
            served.engine.hold()
            large = asyncio.create_task(served.model.embed(distinct_texts(2000), OPTIONS))
            while "te_queue_size" not in served.metrics():
                await asyncio.sleep(0.001)
            closing = await started(served.model.close())
            with pytest.raises(InferenceError, match="the model is closed"):
                await served.model.embed(["1"], OPTIONS)
            served.engine.let()
            await closing
            assert len((await large).value) == 2000

    run(test())


def test_what_a_later_chunk_lacks_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_INPUTS", 2)

    async def test() -> None:
        async with serving(limits=LARGE) as served:
            served.engine.hold()
            with pytest.raises(EmptyInputError):
                await served.model.embed(["1", "2", "3", ""], OPTIONS)
            assert served.model.permits.free == LARGE.max_concurrent_requests
            served.engine.let()
            await served.model.embed(["4"], OPTIONS)
            assert served.metrics("te_queue_size") == {"te_queue_size": 0}
            assert [3] not in [ids for ran in served.engine.batches for ids in ran.inputs]

    run(test())


def test_an_engine_that_fails_on_an_early_chunk_is_spared_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_INPUTS", 1)

    async def test() -> None:
        async with serving(FakeEngine(batch_tokens=1), limits=LARGE) as served:
            served.engine.bad_ids = {13}
            with pytest.raises(InferenceError):
                await served.model.embed(["13", *map(str, range(20, 40))], OPTIONS)
            assert len(served.engine.batches) <= 1 + CHUNKS_QUEUED + 1

    run(test())


def test_timings_of_chunks_add_up_to_the_time_each_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_INPUTS", 1)
    clock = FakeClock()
    tokenizer = fake_tokenizer()
    encode = tokenizer.encode

    def slow(*arguments: Any) -> Any:
        clock.advance(0.25)
        return encode(*arguments)

    monkeypatch.setattr(tokenizer, "encode", slow)

    async def test() -> None:
        engine = FakeEngine(on_run=lambda batch: clock.advance(2))
        limits = Limits(max_batch_requests=1)
        async with serving(engine, tokenizer=tokenizer, clock=clock, limits=limits) as served:
            engine.hold()
            asked = await started(served.model.embed(["1", "2"], OPTIONS))
            engine.let()
            answer = await asked
            # Tokenized at 0.25 and 0.5, while the engine stood still; answered at 2.5 and 4.5.
            assert answer.usage.timings == Timings(tokenization=0.25, queue=(0.25 + 2.25) / 2, inference=2)

    run(test())
