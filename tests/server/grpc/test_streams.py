"""Streams: the order of the answers, what runs at a time, and how they end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FakeEngine, fake_info, fake_model, fake_tokenizer
from tests.server.grpc.calling import calling, run, status
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.server.grpc.streams import Ahead, in_order
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import Kind


async def each(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def before_failure(answers: AsyncIterator[int], failure: type[Exception]) -> list[int]:
    """What came before it."""
    found: list[int] = []
    try:
        async for item in answers:
            found.append(item)
    except failure:
        return found
    raise AssertionError("nothing failed")


def items(most: int) -> Ahead:
    """A limit of items alone."""
    return Ahead(most, lambda: math.inf, lambda item: 0)


# --- in_order by itself -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 8))
def test_answers_keep_the_order_however_long_each_takes(turns: list[int], most: int) -> None:
    running = peak = 0

    async def answer(item: tuple[int, int]) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(item[1]):
            await asyncio.sleep(0)
        running -= 1
        return item[0]

    async def test() -> list[int]:
        return [found async for found in in_order(each(list(enumerate(turns))), answer, items(most))]

    assert asyncio.run(test()) == list(range(len(turns)))
    assert peak <= most + 1
    assert not running


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 5))
def test_the_first_failure_ends_the_stream_after_the_answers_before_it(bad: int, more: int, most: int) -> None:
    cancelled = started = 0

    async def answer(item: int) -> int:
        nonlocal cancelled, started
        started += 1
        try:
            await asyncio.sleep(0)
            if item == bad:
                raise ValueError
            await asyncio.sleep(0 if item < bad else 60)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return item

    assert asyncio.run(before_failure(in_order(each(list(range(bad + more))), answer, items(most)), ValueError)) == [
        *range(bad)
    ]
    assert cancelled == max(0, started - bad - 1)


def test_requests_are_read_no_further_than_that() -> None:
    read = 0

    async def requests() -> AsyncIterator[int]:
        nonlocal read
        for item in range(100):
            read += 1
            yield item

    async def answer(item: int) -> int:
        return item

    async def test() -> None:
        answers = in_order(requests(), answer, items(10))
        assert await anext(answers) == 0
        for _ in range(50):
            await asyncio.sleep(0)
        assert read <= 12  # ten ahead, one that waits for its turn, one answered
        await answers.aclose()  # type: ignore[attr-defined]

    asyncio.run(test())


def test_a_source_that_fails() -> None:
    async def requests() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    async def answer(item: int) -> int:
        return item

    assert asyncio.run(before_failure(in_order(requests(), answer, items(2)), ConnectionError)) == [1]


# --- over the wire ----------------------------------------------------------------------------------------------------


def texts(count: int) -> list[tei.EmbedRequest]:
    return [tei.EmbedRequest(inputs=" ".join(["1"] * (1 + n % 7)), normalize=False) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_stream_keeps_its_order(count: int) -> None:
    """More items than permits: they wait for their turn, none is refused."""

    async def test() -> list[float]:
        async with calling(fake_model(limits=Limits(max_concurrent_requests=3))) as stub:
            answers = [answer async for answer in stub.stream("Embed.EmbedStream", iter(texts(count)))]
            assert all(answer.metadata.compute_tokens == answer.embeddings[0] for answer in answers)
            return [answer.embeddings[0] for answer in answers]

    assert run(test()) == [1 + n % 7 for n in range(count)]


@pytest.mark.parametrize(
    ("method", "request_", "info"),
    [
        ("Embed.EmbedStream", tei.EmbedRequest(inputs="1"), fake_info()),
        ("Embed.EmbedAllStream", tei.EmbedAllRequest(inputs="1"), fake_info()),
        ("Predict.PredictStream", tei.PredictRequest(inputs="1"), fake_info(Kind.CLASSIFIER)),
        ("Predict.PredictPairStream", tei.PredictPairRequest(inputs=["1", "2"]), fake_info(Kind.CLASSIFIER)),
        ("Tokenize.TokenizeStream", tei.EncodeRequest(inputs="1"), fake_info()),
        ("Tokenize.DecodeStream", tei.DecodeRequest(ids=[1]), fake_info()),
    ],
    ids=str,
)
def test_every_stream(method: str, request_: Any, info: Any) -> None:
    async def test() -> None:
        async with calling(fake_model(info=info)) as stub:
            unary = await stub(method.removesuffix("Stream"), request_)
            answers = [answer async for answer in stub.stream(method, iter([request_] * 3))]
            assert len(answers) == 3
            for answer in (unary, *answers):
                if hasattr(answer, "metadata"):
                    answer.ClearField("metadata")
                assert answer == unary

    run(test())


def test_the_first_bad_item_ends_it() -> None:
    async def test() -> None:
        async with calling() as stub:
            items = [*texts(3), tei.EmbedRequest(), *texts(3)]
            stream = stub.stream("Embed.EmbedStream", iter(items))
            for expected in (1, 2, 3):
                assert (await stream.read()).embeddings[0] == expected
            assert await status(stream.read()) == (
                "INVALID_ARGUMENT",
                "Input validation error: `inputs` cannot be empty",
            )

    run(test())


def test_a_client_that_goes_away_cancels_what_has_not_run() -> None:
    engine = FakeEngine()

    async def test() -> None:
        model = fake_model(engine)
        async with calling(model) as stub:
            engine.hold()
            stream = stub.stream("Embed.EmbedStream", iter(texts(20)))
            while model.permits.free > 512 - 20:
                await stub("Info.Info", tei.InfoRequest())
            stream.cancel()
            while model.permits.free < 512:
                await stub("Info.Info", tei.InfoRequest())
            engine.let()
            assert list((await stub("Embed.Embed", tei.EmbedRequest(inputs="9"))).embeddings)
            assert sum(len(batch.inputs) for batch in engine.batches) < 20

    run(test())


@pytest.mark.parametrize("return_text", [False, True])
def test_rerank_stream(return_text: bool) -> None:
    """The score of a pair grows with its length here: the last text is the longest."""

    async def test() -> None:
        async with calling(fake_model(info=fake_info(Kind.RERANKER))) as stub:
            items = [
                tei.RerankStreamRequest(query="1", text="2 " * n, raw_scores=True, return_text=return_text)
                for n in (1, 4, 2, 4)
            ]
            call = stub.collect("Rerank.RerankStream", iter(items))
            answer = await call
            assert [rank.index for rank in answer.ranks] == [3, 1, 2, 0]
            assert [rank.score for rank in answer.ranks] == [5, 5, 3, 2]
            wanted = ["2 " * 4, "2 " * 4, "2 " * 2, "2 " * 1] if return_text else [""] * 4
            assert [rank.text for rank in answer.ranks] == wanted
            assert [rank.HasField("text") for rank in answer.ranks] == [return_text] * 4
            assert answer.metadata.compute_tokens == 15
            assert dict(await call.initial_metadata())["x-compute-tokens"] == "15"

    run(test())


def test_scores_of_a_stream_that_are_all_one_are_in_the_order_of_their_logits() -> None:
    async def test() -> None:
        model = fake_model(info=fake_info(Kind.RERANKER), tokenizer=fake_tokenizer(max_input_length=60))
        async with calling(model) as stub:
            items = [tei.RerankStreamRequest(query="1", text="2 " * n) for n in (20, 40, 30)]
            answer = await stub.collect("Rerank.RerankStream", iter(items))
            assert [(rank.index, rank.score) for rank in answer.ranks] == [(1, 1), (2, 1), (0, 1)]

    run(test())


def test_a_stream_leaves_permits_to_single_calls() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine, limits=Limits(max_concurrent_requests=4))) as stub:
            engine.hold()
            stream = stub.stream("Embed.EmbedStream", iter(texts(50)))
            while not engine.batches:
                await stub("Info.Info", tei.InfoRequest())
            single = asyncio.gather(*(stub("Embed.Embed", tei.EmbedRequest(inputs="9")) for _ in range(2)))
            while sum(len(batch.inputs) for batch in engine.batches) < 2:
                engine.let(1)
                await stub("Info.Info", tei.InfoRequest())
            engine.let()
            assert len(await single) == 2
            assert len([answer async for answer in stream]) == 50

    run(test())


def test_a_stream_leaves_permits_for_others() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine, limits=Limits(max_concurrent_requests=4))) as stub:
            engine.hold()
            stream = stub.stream("Embed.EmbedStream", iter(texts(20)))
            await asyncio.to_thread(engine.wait_for, 1)
            other = asyncio.ensure_future(stub("Embed.Embed", tei.EmbedRequest(inputs="1")))
            engine.let()
            assert list((await other).embeddings)
            assert len([answer async for answer in stream]) == 20

    run(test())
