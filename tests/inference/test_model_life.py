"""A request's life in a model: tokenized, queued, batched, cancelled, failed; health and the end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Served, run, serving, started

from tests.fakes import (
    OPTIONS,
    PATIENCE,
    FakeClock,
    FakeEngine,
    fake_model,
    fake_tokenizer,
    pooled_vector,
    until,
)
from tests.loaded import loaded_model
from text_embeddings_inference.errors import InferenceError, OverloadedError, TextEmbeddingsError
from text_embeddings_inference.inference.model import INLINE_IDS
from text_embeddings_inference.settings import Limits, Settings
from text_embeddings_inference.types import EncodeOptions, Input, Timings

BERT = Path(__file__).parents[1] / "fixtures" / "models" / "bert"


def test_one_hop_back_for_a_request_of_several_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving() as served:
            loop = asyncio.get_running_loop()
            hops: list[str] = []
            call = loop.call_soon_threadsafe

            def counted(*arguments: Any) -> Any:
                hops.append(threading.current_thread().name)
                return call(*arguments)

            monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
            await served.model.embed([[id_] for id_ in range(1, 9)], OPTIONS)
            assert len(hops) == 1
            assert hops[0].startswith("engine-")

    run(test())


def test_requests_that_come_while_the_engine_is_busy_run_together() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.hold()
            tasks = [await started(served.model.embed(["1"], OPTIONS, normalize=False))]
            served.engine.wait_for(1)
            for id_ in range(2, 6):
                tasks.append(await started(served.model.embed([str(id_)], OPTIONS, normalize=False)))
            served.engine.let()
            answers = await asyncio.gather(*tasks)
            assert [ran.inputs for ran in served.engine.batches] == [[[1]], [[2], [3], [4], [5]]]
            for id_, answer in enumerate(answers, 1):
                np.testing.assert_array_equal(answer.value, [pooled_vector([id_], 4)])

    run(test())


def test_a_bad_input_fails_its_request_and_no_other() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.bad_ids = {13}
            served.engine.hold()
            first = await started(served.model.embed(["1"], OPTIONS))
            served.engine.wait_for(1)
            texts = ["2", "3 13", "4", "5"]
            tasks = [await started(served.model.embed([text], OPTIONS)) for text in texts]
            served.engine.let()
            await first
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(result, InferenceError) for result in results] == [False, True, False, False]
            assert isinstance(results[1], InferenceError)
            assert str(results[1].__cause__) == "bad input [3, 13]"
            assert served.failures() == {"inference": 1}
            assert served.metrics("te_embed_count", "te_embed_success") == {"te_embed_count": 5, "te_embed_success": 4}

    run(test())


def test_a_cancelled_request_is_not_run_and_frees_its_permits() -> None:
    async def test() -> None:
        async with serving(limits=Limits(max_concurrent_requests=3)) as served:
            served.engine.hold()
            running = await started(served.model.embed(["1"], OPTIONS))
            served.engine.wait_for(1)
            queued = await started(served.model.embed(["2", "3"], OPTIONS))
            with pytest.raises(OverloadedError):
                await served.model.embed(["4"], OPTIONS)
            for task in (running, queued):
                task.cancel()
            await asyncio.wait([running, queued])
            assert running.cancelled()
            assert queued.cancelled()
            last = await started(served.model.embed(["5", "6", "7"], OPTIONS))
            served.engine.let()
            await last
            assert [ran.inputs for ran in served.engine.batches] == [[[1]], [[5], [6], [7]]]
            assert served.failures() == {"overloaded": 1, "dropped": 2}

    run(test())


def test_a_request_cancelled_in_the_moment_of_its_answer() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.hold()
            task = await started(served.model.embed(["1"], OPTIONS))
            served.engine.wait_for(1)
            served.engine.let()
            while served.metrics("tei_batch_tokens_total") == {}:  # the answer is on its way, the loop has not seen it
                threading.Event().wait(0.001)
            task.cancel()
            await asyncio.wait([task])
            await served.model.embed(["2"], OPTIONS)

    run(test())


def test_a_cancelled_request_is_answered_to_a_loop_that_is_closed() -> None:
    engine = FakeEngine()
    model = fake_model(engine)
    engine.hold()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.embed(["1"], OPTIONS), 0.01)

    async def ask_again() -> None:
        for _ in range(3):  # more than there are threads
            await model.embed(["2"], OPTIONS)
        await model.close()

    run(leave())
    engine.wait_for(1)
    engine.let()
    run(ask_again())
    assert [ran.inputs for ran in engine.batches] == [[[1]], [[2]], [[2]], [[2]]]


# --- tokenizing beside the loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "argument", "long"),
    [
        ("embed", ["1"], False),
        ("embed", ["1 " * 1000], True),
        ("embed", [[1] * 10_001], True),
        ("tokenize", ["1"], False),
        ("tokenize", ["1 " * 1000], True),
        ("decode", [[1]], False),
        ("decode", [[1] * INLINE_IDS, [1]], True),
    ],
    ids=["embed-short", "embed-long", "embed-ids", "tokenize-short", "tokenize-long", "decode-short", "decode-long"],
)
def test_long_work_is_done_in_a_worker_thread(
    monkeypatch: pytest.MonkeyPatch, method: str, argument: list[Any], long: bool
) -> None:
    tokenizer = fake_tokenizer()
    threads: list[str] = []
    name = "encode" if method == "embed" else method
    work = getattr(tokenizer, name)

    def recorded(*arguments: Any, **keywords: Any) -> Any:
        threads.append(threading.current_thread().name)
        return work(*arguments, **keywords)

    monkeypatch.setattr(tokenizer, name, recorded)

    async def test() -> None:
        async with serving(tokenizer=tokenizer) as served:
            await getattr(served.model, method)(argument, *[OPTIONS] * (method == "embed"))

    run(test())
    assert len(threads) == 1
    assert threads[0].startswith("tokenizer") == long


def test_a_request_cancelled_while_it_is_tokenized_is_never_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = fake_tokenizer()
    gate, entered = threading.Event(), threading.Event()
    encode = tokenizer.encode

    def slow(inputs: list[Input], options: EncodeOptions) -> Any:
        if tokenizer.is_long(inputs):
            entered.set()
            assert gate.wait(PATIENCE)
        return encode(inputs, options)

    monkeypatch.setattr(tokenizer, "encode", slow)

    async def test() -> None:
        async with serving(tokenizer=tokenizer, limits=Limits(max_concurrent_requests=1)) as served:
            task = await started(served.model.embed(["1 " * 1000], OPTIONS))
            assert entered.wait(PATIENCE)
            task.cancel()
            await asyncio.wait([task])
            await served.model.embed(["2"], OPTIONS)  # its permit is free
            gate.set()
            await served.model.embed(["3"], OPTIONS)
            assert [ran.inputs for ran in served.engine.batches] == [[[2]], [[3]]]

    run(test())


# --- times ------------------------------------------------------------------------------------------------------------


def test_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    tokenizer = fake_tokenizer()
    encode = tokenizer.encode

    def slow(inputs: list[Input], options: EncodeOptions) -> Any:
        clock.advance(0.25)
        return encode(inputs, options)

    monkeypatch.setattr(tokenizer, "encode", slow)

    async def test() -> None:
        engine = FakeEngine(on_run=lambda batch: clock.advance(2 * len(batch.lengths)))
        limits = Limits(max_batch_requests=1)
        async with serving(engine, tokenizer=tokenizer, clock=clock, limits=limits) as served:
            answer = await served.model.embed(["1", "2"], OPTIONS)
            # The second input waits for the first.
            assert answer.usage.timings == Timings(tokenization=0.25, queue=1, inference=2)
            assert served.metrics() | TIMES == served.metrics()

    run(test())


TIMES = {
    "te_embed_duration_sum": 8.5,
    "te_embed_duration_count": 2,
    "te_embed_tokenization_duration_sum": 0.5,
    "te_embed_queue_duration_sum": 2,
    "te_embed_inference_duration_sum": 4,
}


# --- health and the end -----------------------------------------------------------------------------------------------


def test_healthy_without_work() -> None:
    async def test() -> None:
        async with serving() as served:
            assert served.model.healthy
            assert served.engine.batches == []

    run(test())


def test_healthy_after_one_bad_input_and_not_with_a_broken_engine() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.bad_ids = {13}
            await fail(served)
            served.engine.wait_for(2)
            assert served.engine.batches[-1].inputs == [[0]], "it was asked"
            assert served.model.healthy
            served.engine.bad_ids = {0, 13}
            await fail(served)
            until(lambda: not served.model.healthy)
            served.engine.bad_ids = set()
            await served.model.embed(["1"], OPTIONS)
            assert served.model.healthy

    run(test())


async def fail(served: Served) -> None:
    with pytest.raises(InferenceError):
        await served.model.embed(["13"], OPTIONS)


def test_closing_answers_what_was_accepted() -> None:
    before = {thread for thread in threading.enumerate() if thread.is_alive()}

    async def test() -> None:
        async with serving(FakeEngine(streams=2)) as served:
            served.engine.hold()
            tasks = [await started(served.model.embed([str(id_)], OPTIONS)) for id_ in range(1, 6)]
            closing = await started(served.model.close())
            await asyncio.sleep(0)
            assert not closing.done()
            served.engine.let()
            await closing
            await asyncio.gather(*tasks)
            assert served.engine.closed == 1

    run(test())
    assert {thread for thread in threading.enumerate() if thread.is_alive()} == before


@pytest.mark.parametrize("text", ["1", "1 " * 1000], ids=["short", "long"])
def test_nothing_is_accepted_after_the_end(text: str) -> None:
    async def test() -> None:
        model = fake_model()
        await model.close()
        for _ in range(2):
            with pytest.raises(InferenceError, match=r"^Backend error: the model is closed$") as caught:
                await model.embed([text], OPTIONS)
            assert isinstance(caught.value, TextEmbeddingsError)
        await model.close()

    run(test())


def test_another_engine_of_the_same_checkpoint_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    async def test() -> None:
        model = loaded_model(Settings.of(model_id=str(BERT), dtype="float32", batch_timeout=5))
        try:
            [expected] = (await model.embed(["hello"], OPTIONS)).value
            first = model.runner.engine
            entered = threading.Event()
            monkeypatch.setattr(first, "run", lambda *_, **__: (entered.set(), gate.wait(PATIENCE)))
            hanging = await started(model.embed(["hello there"], OPTIONS))
            assert entered.wait(PATIENCE)
            model.runner.tick(5)
            with pytest.raises(InferenceError, match="took too long"):
                await hanging
            [found] = (await model.embed(["hello"], OPTIONS)).value  # waits for the new one
            np.testing.assert_allclose(found, expected, atol=1e-6)
            assert model.runner.engine is not first
            assert model.healthy
        finally:
            gate.set()
            await model.close()

    run(test())


def test_metrics_say_from_the_start_what_is_served() -> None:
    async def test() -> None:
        model = loaded_model(Settings.of(model_id=str(BERT), engine="openvino", dtype="float32", served_model_name="x"))
        try:
            labels = 'model_id="x",dtype="float32",engine="openvino",architecture="bert"'
            assert model.metrics.render().decode() == f"# TYPE tei_model_info gauge\ntei_model_info{{{labels}}} 1\n\n"
        finally:
            await model.close()

    run(test())
