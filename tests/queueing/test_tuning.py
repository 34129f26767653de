"""When an engine is measured, and what follows from it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from fakes import PATIENCE, FakeEngine, fake_model, fake_parts, until
from oracle.expected import MODELS
from text_embeddings_inference.engines.base import Capacity, Engine
from text_embeddings_inference.engines.measure import Quantity
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.loading.load import load_parts
from text_embeddings_inference.loading.open import open_model
from text_embeddings_inference.queueing import tuning
from text_embeddings_inference.settings import Limits, Settings
from text_embeddings_inference.types import EncodeOptions

BOTH: tuple[Quantity, ...] = ("batch_tokens", "streams")


def model_of(engine: FakeEngine, to_measure: tuple[Quantity, ...] = BOTH) -> Model:
    return Model(fake_parts(engine, to_measure=to_measure), Limits())


class Measure:
    """In place of `measure`: doubles the batches and leaves one stream. `on_call` may raise."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], float]] = []
        self.on_call: Callable[[], None] = lambda: None

    def __call__(
        self,
        engine: Engine,
        capacity: Capacity,
        wanted: Collection[str],
        seconds: float,
        undisturbed: Callable[[], bool],
    ) -> Capacity:
        self.calls.append((list(wanted), seconds))
        self.on_call()
        return Capacity(1, 2 * capacity.batch_tokens)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    stand_in = Measure()
    monkeypatch.setattr(tuning, "measure", stand_in)
    return stand_in


def run(model: Model, warmup: Literal["off", "full"], texts: int = 0) -> None:
    """Warms a model up, lets it answer, and closes it."""

    async def life() -> None:
        model.warm_up(warmup)
        if texts:
            await model.embed([f"1 2 3 {number}" for number in range(texts)], EncodeOptions())
        await model.close()

    asyncio.run(life())


def test_off_measures_nothing(measure: Measure) -> None:
    run(model_of(FakeEngine()), "off")
    assert not measure.calls


def test_full_measures_before_the_server_is_ready(measure: Measure) -> None:
    run(model_of(FakeEngine(streams=2)), "full")
    assert measure.calls == [(["batch_tokens", "streams"], tuning.FULL_S)]


def test_what_was_set_by_hand_stays(measure: Measure) -> None:
    run(model_of(FakeEngine(streams=2), ("streams",)), "full")
    assert [wanted for wanted, _ in measure.calls] == [["streams"]]


@pytest.mark.parametrize(
    ("by_hand", "to_measure"),
    [({}, BOTH), ({"max_batch_tokens": 64}, ("streams",)), ({"streams": 2}, ("batch_tokens",))],
)
def test_what_is_set_by_hand(by_hand: dict[str, int], to_measure: tuple[str, ...]) -> None:
    with open_model(Settings.of(model_id=str(MODELS / "bert"), dtype="float32", **by_hand)) as opened:
        parts = load_parts(opened)
        parts.engine.close()
    assert parts.to_measure == to_measure


def test_the_engine_is_measured_when_its_vectors_have_been_compared(measure: Measure) -> None:
    """`full`: comparing runs the engine too."""
    order: list[str] = []

    def compare() -> float:
        time.sleep(0.05)
        order.append("compared")
        return 1.0

    measure.on_call = lambda: order.append("measured")
    run(Model(fake_parts(FakeEngine(), measure_fidelity=compare, to_measure=BOTH), Limits()), "full")
    assert order == ["compared", "measured"]


def test_batches_are_of_the_size_that_was_found(measure: Measure) -> None:
    """16 texts of 4 tokens: two batches of 32 tokens before, one of 64 after the engine was measured."""
    before, after = FakeEngine(batch_tokens=32), FakeEngine(batch_tokens=32)
    run(model_of(before), "off", texts=16)
    run(model_of(after), "full", texts=16)
    assert max(len(batch.inputs) for batch in before.batches) == 8
    assert max(len(batch.inputs) for batch in after.batches) == 16


def test_fast_measures_in_a_quiet_moment(monkeypatch: pytest.MonkeyPatch, measure: Measure) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.001)
    done, interruptions = threading.Event(), iter([True, True, False])

    def interrupt() -> None:
        if next(interruptions):
            raise InterruptedError
        done.set()

    measure.on_call = interrupt

    async def life() -> None:
        model = model_of(FakeEngine())
        model.warm_up("fast")
        assert await asyncio.get_running_loop().run_in_executor(None, done.wait, PATIENCE)
        await model.close()

    asyncio.run(life())
    assert measure.calls == [(["batch_tokens", "streams"], tuning.FAST_S)] * 3


def test_fast_gives_up_where_it_is_never_quiet(monkeypatch: pytest.MonkeyPatch, measure: Measure) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.0)

    def interrupt() -> None:
        raise InterruptedError

    measure.on_call = interrupt
    model = fake_model()
    tuner = tuning.Tuner(model.runner, ["batch_tokens"])
    tuner.start()
    until(lambda: all(thread.name != "tuner" for thread in threading.enumerate()))
    assert len(measure.calls) == tuning.ATTEMPTS
    asyncio.run(model.close())


def test_other_batches_disturb() -> None:
    """A batch that runs while the engine is measured."""

    async def life() -> None:
        model = fake_model(engine := FakeEngine(streams=2))
        asked = False

        def ask_once(batch: object) -> None:
            nonlocal asked
            if not asked:
                asked = True
                asyncio.run_coroutine_threadsafe(model.embed(["1"], EncodeOptions()), loop).result(PATIENCE)

        loop, engine.on_run = asyncio.get_running_loop(), ask_once
        tuner = tuning.Tuner(model.runner, ["streams"])
        with pytest.raises(InterruptedError):
            await loop.run_in_executor(None, tuner.run)
        await model.close()

    asyncio.run(life())


def test_nothing_is_measured_while_batches_run(monkeypatch: pytest.MonkeyPatch, measure: Measure) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.001)
    engine = FakeEngine()

    async def life() -> None:
        model = fake_model(engine)
        model.warm_up()
        engine.hold()
        looked = threading.Semaphore(0)
        idle = type(model.runner).idle
        monkeypatch.setattr(
            type(model.runner),
            "idle",
            property(lambda self: (idle.fget(self), looked.release())[0]),  # type: ignore[attr-defined]
        )
        tuner = tuning.Tuner(model.runner, ["batch_tokens"])
        asking = asyncio.create_task(model.embed(["1"], EncodeOptions()))
        await asyncio.get_running_loop().run_in_executor(None, engine.wait_for, len(engine.batches) + 1)
        tuner.start()
        for _ in range(3):
            assert await asyncio.get_running_loop().run_in_executor(None, looked.acquire, True, PATIENCE)
        assert not measure.calls
        tuner.close()
        engine.let()
        answer = await asking
        assert np.isfinite(answer.value[0]).all()
        await model.close()

    asyncio.run(life())


def test_a_measurement_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, measure: Measure, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tuning, "QUIET_S", 0.001)
    outcomes, done = iter([RuntimeError("no primitive"), None]), threading.Event()

    def fail_once() -> None:
        problem = next(outcomes)
        if problem is not None:
            raise problem
        done.set()

    measure.on_call = fail_once
    with model_of(FakeEngine()) as model:
        model.warm_up("fast")
        assert done.wait(PATIENCE)
    assert "no primitive" in caplog.text


def test_a_fidelity_that_can_not_be_measured_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> float:
        raise RuntimeError("no memory for weights")

    engine = FakeEngine()
    with Model(replace(fake_parts(engine), measure_fidelity=fail), Limits()) as model:
        model.warm_up("full")
        assert model.info.fidelity is None
    assert "could not be measured: no memory for weights" in caplog.text
