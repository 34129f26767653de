"""When an engine is measured, and what follows from it."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from fakes import PATIENCE, FakeEngine, fake_model
from text_embeddings_inference.queueing import tuning
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import EncodeOptions


def settings(warmup: str, **options: int) -> Settings:
    return Settings.of(model_id="fake", warmup=warmup, **options)


def measured(engine: FakeEngine) -> list[str]:
    return [what for what, _ in engine.tuned]


def run(engine: FakeEngine, wanted: Settings, texts: int = 0) -> None:
    """Warms a model up, lets it answer, and closes it."""

    async def life() -> None:
        model = fake_model(engine)
        model.warm_up(wanted)
        if texts:
            await model.embed([f"1 2 3 {number}" for number in range(texts)], EncodeOptions())
        await model.close()

    asyncio.run(life())


def test_off_measures_nothing() -> None:
    engine = FakeEngine()
    run(engine, settings("off"))
    assert not engine.tuned


def test_full_measures_before_the_server_is_ready() -> None:
    engine = FakeEngine(streams=2)
    run(engine, settings("full"))
    assert engine.tuned == [("batch_tokens", tuning.FULL_S), ("streams", tuning.FULL_S)]


@pytest.mark.parametrize(
    ("given", "found_out"), [("max_batch_tokens", ["streams"]), ("streams", ["batch_tokens"]), ("port", None)]
)
def test_what_was_set_by_hand_stays(given: str, found_out: list[str] | None) -> None:
    engine = FakeEngine(streams=2)
    run(engine, settings("full", **{given: 2}))
    assert measured(engine) == (found_out or ["batch_tokens", "streams"])


def test_batches_are_of_the_size_that_was_found() -> None:
    """16 texts of 4 tokens: two batches of 32 tokens before, one of 64 after the engine was measured."""
    before, after = FakeEngine(batch_tokens=32), FakeEngine(batch_tokens=32)
    run(before, settings("off"), texts=16)
    run(after, settings("full"), texts=16)
    assert max(len(batch.inputs) for batch in before.batches) == 8
    assert max(len(batch.inputs) for batch in after.batches) == 16


def test_fast_measures_in_a_quiet_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.001)
    engine, done = FakeEngine(), threading.Event()
    interruptions = iter([True, True, False])

    def interrupt() -> None:
        if next(interruptions):
            raise InterruptedError
        done.set()

    engine.on_tune = interrupt

    async def life() -> None:
        model = fake_model(engine)
        model.warm_up(settings("fast"))
        assert await asyncio.get_running_loop().run_in_executor(None, done.wait, PATIENCE)
        await model.close()

    asyncio.run(life())
    assert measured(engine) == ["batch_tokens"] * 3 + ["streams"]
    assert {seconds for _, seconds in engine.tuned} == {tuning.FAST_S}


def test_fast_gives_up_where_it_is_never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.0)
    engine = FakeEngine()

    def interrupt() -> None:
        raise InterruptedError

    engine.on_tune = interrupt
    model = fake_model(engine)
    tuner = tuning.Tuner(engine, model._runner, batch_tokens=True, streams=True)
    tuner.start()
    assert tuner._thread is not None
    tuner._thread.join(PATIENCE)
    assert measured(engine) == ["batch_tokens"] * tuning.ATTEMPTS
    asyncio.run(model.close())


def test_nothing_is_measured_while_batches_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.001)
    engine = FakeEngine()

    async def life() -> None:
        model = fake_model(engine)
        model.warm_up(settings("off"))
        engine.hold()
        tuner = tuning.Tuner(engine, model._runner, batch_tokens=True, streams=True)
        asking = asyncio.create_task(model.embed(["1"], EncodeOptions()))
        await asyncio.get_running_loop().run_in_executor(None, engine.wait_for, len(engine.batches) + 1)
        tuner.start()
        await asyncio.sleep(0.05)
        assert not engine.tuned
        tuner.close()
        engine.let()
        answer = await asking
        assert np.isfinite(answer.value[0]).all()
        await model.close()

    asyncio.run(life())
