"""Engines that hang, give NaN, run out of memory or break for good: who is hurt, what is told, and who takes over."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from running import CANARY, Queueing, Request, queueing

from tests.fakes import PATIENCE, FakeEngine, pooled_vector, until
from text_embeddings_inference.errors import InferenceError
from text_embeddings_inference.queueing import recovery
from text_embeddings_inference.queueing.recovery import LONGEST_RECOVERY_S, MOST_HANGING, NO_ENGINE, TOO_LONG
from text_embeddings_inference.queueing.runner import ENDING, ENGINE_FAILED
from text_embeddings_inference.types import Batch, Output

TIMEOUT_S = 10
HANGING = 66
"""A batch with this id does not end until the test says so."""


class Script(FakeEngine):
    """Hangs in batches with `HANGING`, and spreads NaN from an input to all the others of its batch."""

    def __init__(self, gate: threading.Event, *, streams: int = 1) -> None:
        super().__init__(on_run=self.wait, streams=streams)
        self.gate = gate
        self.hanging = 0

    def wait(self, batch: Batch) -> None:
        if HANGING in batch.input_ids:
            self.hanging += 1
            assert self.gate.wait(PATIENCE)

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        output = super().run(batch, tokens=tokens, cores=cores)
        spoilt = bool(np.isnan(output.pooled).any())
        return Output(np.full_like(output.pooled, np.nan), output.tokens) if spoilt else output


class Engines:
    """Makes engines, the first one too."""

    def __init__(self, *, streams: int = 1) -> None:
        self.gate = threading.Event()
        self.made: list[Script] = []
        self.on_make: Callable[[Script], None] = lambda engine: None
        self._streams = streams

    def __call__(self) -> Script:
        engine = Script(self.gate, streams=self._streams)
        self.made.append(engine)
        self.on_make(engine)
        return engine

    @property
    def hanging(self) -> int:
        return sum(engine.hanging for engine in self.made)


@contextmanager
def queueing_of(engines: Engines) -> Iterator[Queueing]:
    try:
        with queueing(engines(), new_engine=engines, batch_timeout=TIMEOUT_S) as served:
            try:
                yield served
            finally:
                engines.gate.set()
    finally:
        until(lambda: not served.runner.hangs)


def hang(served: Queueing, engines: Engines, *others: list[int]) -> list[Request]:
    """Requests that are in one batch with an input that makes it hang."""
    engine = engines.made[-1]
    engine.hold()
    first = served.ask([1])
    before = len(engine.batches)
    engine.wait_for(max(1, before))
    requests = [served.ask([HANGING]), *(served.ask(ids) for ids in others)]
    engine.let()
    first.check()
    until(lambda: engine.hanging > 0)
    return requests


def failed(request: Request, message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        request.rows()


def test_a_batch_that_hangs_hurts_only_the_input_that_makes_it(caplog: pytest.LogCaptureFixture) -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        culprit, *others = hang(served, engines, [2], [3])
        assert served.runner.healthy, "it has time yet"
        served.runner.tick(TIMEOUT_S)
        assert "the engine is not healthy" in caplog.messages
        until(lambda: engines.hanging == 2)  # now alone, in the second engine
        served.runner.tick(TIMEOUT_S)
        failed(culprit, TOO_LONG)
        for request in others:
            request.check()
        until(lambda: served.runner.healthy)
        assert len(engines.made) == 3
        assert served.metric("tei_engine_replacements_total 2")
        served.ask([5]).check()
        assert [engine.closed for engine in engines.made[:2]] == [0, 0], "their threads still hang"
        engines.gate.set()
        until(lambda: [engine.closed for engine in engines.made] == [1, 1, 0])


def test_what_comes_too_late_is_dropped() -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        [culprit] = hang(served, engines)
        served.runner.tick(TIMEOUT_S)
        failed(culprit, TOO_LONG)
        until(lambda: served.runner.healthy)
        engines.gate.set()
        until(lambda: engines.made[0].closed == 1)
        failed(culprit, TOO_LONG)


def test_other_batches_of_an_engine_that_hangs_may_end() -> None:
    engines = Engines(streams=2)
    with queueing_of(engines) as served:
        old = engines.made[0]
        culprit = served.ask([HANGING])
        until(lambda: old.hanging == 1)
        served.runner.tick(TIMEOUT_S / 2)
        old.hold()
        other = served.ask([1])
        old.wait_for(2)
        served.runner.tick(TIMEOUT_S / 2)
        failed(culprit, TOO_LONG)
        until(lambda: served.runner.healthy)
        old.let()
        other.check()


def test_without_another_engine_all_fail_at_once_until_the_old_one_comes_back() -> None:
    gate = threading.Event()
    engine = Script(gate)
    with queueing(engine, batch_timeout=TIMEOUT_S) as served:
        culprit = served.ask([HANGING])
        until(lambda: engine.hanging == 1)
        waiting = served.ask([1])
        served.runner.tick(TIMEOUT_S)
        failed(culprit, TOO_LONG)
        failed(waiting, NO_ENGINE)
        with pytest.raises(InferenceError, match=NO_ENGINE):
            served.ask([2])
        assert not served.runner.healthy
        gate.set()
        until(lambda: served.runner.healthy)
        served.ask([3]).check()


def test_engines_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(recovery, "TICK_S", 0.01)
    engines = Engines()
    with queueing_of(engines) as served:

        def refuse(engine: Script) -> None:
            if len(engines.made) < 4:
                raise RuntimeError("no memory for weights")
            if len(engines.made) == 4:
                engine.bad_ids = {0}  # it is made, and does not work

        engines.on_make = refuse
        culprit, other = hang(served, engines, [2])
        served.runner.tick(TIMEOUT_S)
        failed(culprit, NO_ENGINE)
        failed(other, NO_ENGINE)
        until(lambda: served.runner.healthy)
        served.ask([3]).check()
        assert len(engines.made) == 5
        assert engines.made[3].closed == 1
    assert "no memory for weights" in caplog.text


def test_an_engine_that_is_being_made_is_not_waited_for_for_ever() -> None:
    engines = Engines()
    ready = threading.Event()
    with queueing_of(engines) as served:
        engines.on_make = lambda engine: waited_for(ready)
        culprit, other = hang(served, engines, [2])
        served.runner.tick(TIMEOUT_S)
        late = served.ask([3])
        served.runner.tick(LONGEST_RECOVERY_S + 1)
        for request in (culprit, other, late):
            failed(request, NO_ENGINE)
        ready.set()
        until(lambda: served.runner.healthy)
        served.ask([3]).check()


def test_so_many_engines_that_hang_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        for number in range(MOST_HANGING + 1):
            until(lambda: served.runner.healthy)
            culprit = served.ask([HANGING])
            until(lambda number=number: engines.hanging == number + 1)  # type: ignore[misc]
            served.runner.tick(TIMEOUT_S)
            failed(culprit, TOO_LONG)
        assert len(engines.made) == MOST_HANGING + 1
        assert "restart the server" in caplog.text
        with pytest.raises(InferenceError, match=NO_ENGINE):
            served.ask([1])


def test_an_engine_that_fails_on_a_single_token_is_replaced() -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        engines.made[0].bad_ids = {0, 1}
        failed(served.ask([1]), ENGINE_FAILED)
        until(lambda: not served.runner.healthy)
        for canaries in (2, 3):
            served.runner.tick(1)
            until(lambda canaries=canaries: count(engines.made[0], CANARY) == canaries)  # type: ignore[misc]
        until(lambda: served.runner.healthy)
        served.ask([1]).check()
        until(lambda: engines.made[0].closed == 1)
        assert len(engines.made) == 2


def waited_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


def count(engine: FakeEngine, inputs: list[list[int]]) -> int:
    return sum(ran.inputs == inputs for ran in engine.batches)


def test_a_nan_that_spreads_hurts_no_other_input() -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        engine = engines.made[0]
        engine.nan_ids = {13}
        engine.hold()
        first = served.ask([1])
        engine.wait_for(1)
        requests = [served.ask([13 if number == 5 else number]) for number in range(1, 9)]
        engine.let()
        first.check()
        for number, request in enumerate(requests, 1):
            if number == 5:
                assert np.isnan(request.rows()[0].values).all()
            else:
                request.check()
        assert served.runner.healthy


def test_an_engine_that_gives_nan_for_a_single_token_is_not_healthy() -> None:
    with queueing() as served:
        served.engine.nan_ids = {0, 1}
        assert np.isnan(served.ask([1]).rows()[0].values).all()
        until(lambda: not served.runner.healthy)


def test_batches_without_memory_are_halved_and_smaller_from_then_on() -> None:
    def full(batch: Batch) -> None:
        if len(batch.lengths) > 2:
            raise RuntimeError("[CPU] could not allocate: std::bad_alloc")

    with queueing(FakeEngine(on_run=full, batch_tokens=8)) as served:
        served.ask(*[[1]] * 8).check()
        assert max(served.sizes[-2:]) <= 2
        assert served.runner.healthy
        served.ask(*[[1]] * 8).check()
        assert served.sizes.count(8) == 1, "it was not tried again"


def test_a_panic_is_an_error_like_any_other() -> None:
    class Panic(BaseException):
        """As those of Rust are in Python."""

    def panic(batch: Batch) -> None:
        if 13 in batch.input_ids:
            raise Panic("called `unwrap()` on a `None` value")

    with queueing(FakeEngine(on_run=panic)) as served:
        for _ in range(3):  # more than there are threads
            failed(served.ask([13]), ENGINE_FAILED)
        served.ask([1]).check()


def test_abort_answers_all_and_closing_does_not_wait_for_what_runs() -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        engine = engines.made[0]
        engine.hold()
        requests = [served.ask([1])]
        engine.wait_for(1)
        requests += [served.ask([2], [3])]
        served.runner.abort()
        for request in requests:
            failed(request, ENDING)
        served.close()
        assert served.runner.hangs
        engine.let()
        until(lambda: not served.runner.hangs)


def test_closing_waits_for_the_other_engine() -> None:
    engines = Engines()
    with queueing_of(engines) as served:
        culprit, other = hang(served, engines, [2])
        closing = threading.Thread(target=served.close)
        closing.start()
        until(lambda: served.runner.closed)
        served.runner.tick(TIMEOUT_S)
        until(lambda: engines.hanging == 2)
        served.runner.tick(TIMEOUT_S)
        failed(culprit, TOO_LONG)
        other.check()
        closing.join(PATIENCE)
        assert not closing.is_alive()


@pytest.mark.parametrize("seed", range(20))
def test_threads_that_ask_and_leave_while_engines_fail_and_hang(seed: int) -> None:
    """With real threads, in whatever order they run: each request is answered once, with its own rows or an error."""
    rng = random.Random(seed)
    engines = Engines(streams=rng.choice([1, 2]))
    plans = [[rng.choices(range(1, 70), k=rng.randint(1, 4)) for _ in range(rng.randint(1, 5))] for _ in range(60)]
    answered: list[list[list[int]]] = []
    with queueing_of(engines) as served:

        def make(engine: Script) -> None:
            engine.bad_ids, engine.nan_ids = {64}, {65}

        make(engines.made[0])
        engines.on_make = make

        def client(share: list[list[list[int]]]) -> None:
            for inputs in share:
                try:
                    request = served.ask(*inputs)
                except InferenceError:  # too many engines hang
                    answered.append(inputs)
                    continue
                if len(inputs) == 5:
                    served.runner.cancel(request.group)
                else:
                    check(request, inputs)
                answered.append(inputs)

        clients = [threading.Thread(target=client, args=(plans[start::4],)) for start in range(4)]
        for thread in clients:
            thread.start()
        while any(thread.is_alive() for thread in clients):
            served.runner.tick(TIMEOUT_S / 4)
            threading.Event().wait(0.001)
    assert len(answered) == len(plans)


def check(request: Request, inputs: list[list[int]]) -> None:
    try:
        rows = request.rows()
    except InferenceError:
        return
    for row, ids in zip(rows, inputs, strict=True):
        expected = np.full(4, np.nan) if 65 in ids else pooled_vector(ids, 4)
        np.testing.assert_array_equal(row.values, expected)
