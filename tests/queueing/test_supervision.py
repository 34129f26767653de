"""The loops that must go on: what is raised in them is logged, and what they promise is done at the next attempt."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from running import Request, queueing

from tests.fakes import PATIENCE, FakeClock, FakeEngine, until
from text_embeddings_inference.engines.base import Capacity, Engine
from text_embeddings_inference.errors import InferenceError
from text_embeddings_inference.queueing import recovery, workers
from text_embeddings_inference.queueing.dispatch import Dispatch
from text_embeddings_inference.queueing.jobs import JobGroup
from text_embeddings_inference.queueing.recovery import LONGEST_TICK_S, NO_ENGINE, TOO_LONG, Recovery, Watchdog
from text_embeddings_inference.queueing.shared import Shared
from text_embeddings_inference.telemetry.metrics import Metrics
from text_embeddings_inference.telemetry.throttle import REPEATED_EVERY_S, ErrorLog
from text_embeddings_inference.types import Batch

TIMEOUT_S = 10


class NoThreads:
    """In place of `Thread.start`: refuses threads of some names, as a system does that has run out of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: Callable[[str], bool] = lambda name: False
        self.refusals = 0
        start = threading.Thread.start

        def guarded(thread: threading.Thread) -> None:
            if self.refused(thread.name):
                self.refusals += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", guarded)


class Hanging(FakeEngine):
    """Hangs in its first batch."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        super().__init__(on_run=self.hang)

    def hang(self, batch: Batch) -> None:
        if not self.entered.is_set():
            self.entered.set()
            assert self.gate.wait(PATIENCE)


# --- no more threads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recovery", "engine-0"])
def test_attempts_go_on_where_no_thread_can_be_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "TICK_S", 0.01)
    threads, first = NoThreads(monkeypatch), Hanging()
    with queueing(first, new_engine=FakeEngine, batch_timeout=TIMEOUT_S) as served:
        culprit = served.ask([1])
        assert first.entered.wait(PATIENCE)
        threads.refused = lambda other: other == name
        served.runner.tick(TIMEOUT_S)
        with pytest.raises(InferenceError, match=TOO_LONG):
            culprit.rows()
        until(lambda: threads.refusals > 2)
        with pytest.raises(InferenceError, match=NO_ENGINE):
            served.ask([2])
        threads.refused = lambda other: False
        until(lambda: served.runner.healthy)
        served.ask([2]).check()
        first.gate.set()


def test_an_engine_is_served_by_as_many_threads_as_there_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = NoThreads(monkeypatch)
    threads.refused = lambda name: name == "engine-1"
    with queueing(FakeEngine(streams=2)) as served:
        served.ask([1], [2]).check()
    assert served.engine.closed == 1
    assert "an engine is served by 1 threads instead of 3" in caplog.text


# --- loops ------------------------------------------------------------------------------------------------------------


def test_the_watchdog_survives(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(recovery, "TICK_S", 0.001)
    ticks = threading.Semaphore(0)

    def tick(seconds: float) -> None:
        ticks.release()
        raise ValueError("of ours")

    watchdog = Watchdog(tick)
    for _ in range(5):
        assert ticks.acquire(timeout=PATIENCE)
    watchdog.close()
    assert caplog.text.count("ValueError: of ours") == 1, "the others are not logged"


def test_time_in_which_the_process_was_stopped_counts_for_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after SIGSTOP: hours may have passed by the clock between two looks."""
    monkeypatch.setattr(recovery, "TICK_S", 0.001)
    clock, told, looked = FakeClock(), [], threading.Semaphore(0)

    def tick(seconds: float) -> None:
        told.append(seconds)
        clock.advance(1 if len(told) % 2 else 7200)
        looked.release()

    watchdog = Watchdog(tick, clock)
    for _ in range(4):
        assert looked.acquire(timeout=PATIENCE)
    watchdog.close()
    assert told[:4] == [0, 1, LONGEST_TICK_S, 1]


class Failing(Recovery):
    """Needs one engine; what its thread asks first, installs first and says first of a failure raises."""

    def __init__(self, new_engine: Callable[[], FakeEngine]) -> None:
        self.installed: list[Engine] = []
        self.failures = 0
        self.asked = 0
        super().__init__(Shared(Dispatch(), Metrics(512)), new_engine, self.installed.append)

    def needs_engine(self) -> bool:
        if threading.current_thread().name == "recovery":
            self.asked += 1
            if self.asked == 1:
                raise MemoryError
        return not self.installed

    def install(self, engine: Engine) -> bool:
        if not self.failures:
            raise RuntimeError("can't start new thread")
        return super().install(engine)

    def not_recovered(self) -> None:
        self.failures += 1
        raise ValueError("of ours")


def test_the_recovery_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "TICK_S", 0.001)
    made: list[FakeEngine] = []

    def new_engine() -> FakeEngine:
        made.append(FakeEngine())
        return made[-1]

    recovering = Failing(new_engine)
    recovering.recover()
    until(lambda: bool(recovering.installed) and not recovering.works)
    assert recovering.asked > 1
    assert recovering.failures == 1
    assert [engine.closed for engine in made] == [1, 0], "the first could not be installed"
    recovering.close()
    recovering.installed.clear()
    recovering.recover()
    assert not recovering.works


def test_a_process_that_ends_waits_for_an_engine_that_is_being_made() -> None:
    """A thread in native code would end it by `terminate` when it comes back."""
    program = """
import os
import sys
import threading
from text_embeddings_inference.queueing.dispatch import Dispatch
from text_embeddings_inference.queueing.recovery import Recovery
from text_embeddings_inference.queueing.shared import Shared
from text_embeddings_inference.telemetry.metrics import Metrics

begun, child_ended = threading.Event(), threading.Event()

def new_engine():
    begun.set()
    child_ended.wait()
    threading.Event().wait(0.5)
    print("made", flush=True)
    raise RuntimeError("no memory for weights")

dispatch = Dispatch()
dispatch.wanted = 1
Recovery(Shared(dispatch, Metrics(512)), new_engine, print).recover()
begun.wait()
if (child := os.fork()) == 0:
    sys.exit()
os.waitpid(child, 0)
print("a child ends at once", flush=True)
child_ended.set()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "a child ends at once\nmade\n"), done.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_recovery_that_died_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "TICK_S", 0.01)
    first, died = Hanging(), threading.Event()
    outcomes = iter([RuntimeError("no memory"), None])

    def new_engine() -> FakeEngine:
        problem = next(outcomes)
        if problem is not None:
            raise problem
        return FakeEngine()

    def die(recovering: Recovery) -> None:
        died.set()
        raise SystemExit  # ends a thread, in silence

    monkeypatch.setattr(Recovery, "not_recovered", die)
    with queueing(first, new_engine=new_engine, batch_timeout=TIMEOUT_S) as served:
        served.ask([1])
        assert first.entered.wait(PATIENCE)
        served.runner.tick(TIMEOUT_S)
        assert died.wait(PATIENCE)
        until(lambda: served.runner.healthy)
        served.ask([2]).check()
        first.gate.set()


def test_an_error_of_ours_costs_the_batch_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the metrics fail while a batch is taken, and while another is delivered."""
    monkeypatch.setattr(workers, "PAUSE_S", 0.001)
    with queueing(batch_timeout=TIMEOUT_S, new_engine=FakeEngine) as served:
        for name in ("batch_formed", "batch_computed"):
            until(lambda: served.runner.healthy)
            calls = failing(monkeypatch, served.metrics, name)
            request = served.ask([1])
            until(lambda calls=calls: bool(calls))  # type: ignore[misc]
            served.runner.tick(TIMEOUT_S)
            with pytest.raises(InferenceError, match=TOO_LONG):
                request.rows()
        until(lambda: served.runner.healthy)
        for _ in range(5):  # more than there are threads
            served.ask([2]).check()


def failing(monkeypatch: pytest.MonkeyPatch, metrics: Metrics, name: str) -> list[str]:
    """Has a method raise once; the calls."""
    calls: list[str] = []
    method = getattr(metrics, name)

    def once(*arguments: Any) -> None:
        calls.append(name)
        if len(calls) == 1:
            raise OSError(name)
        method(*arguments)

    monkeypatch.setattr(metrics, name, once)
    return calls


def test_an_answer_that_can_not_be_handed_over_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with queueing() as served:
        served.engine.hold()
        first = served.ask([1])
        served.engine.wait_for(1)
        requests = [Request(([number],)) for number in (2, 3)]

        def fail() -> None:
            raise OSError("no such loop")

        broken = JobGroup(requests[0].group.encodings, tokens=False, on_done=fail)
        served.runner.submit(broken)
        served.runner.submit(requests[1].group)
        served.engine.let()
        first.check()
        requests[1].check()
        assert "an answer could not be handed over" in caplog.text


def test_errors_that_repeat_are_counted_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    log = ErrorLog(logging.getLogger("throttled"), clock)
    for _ in range(3):
        raise_and_log(log)
        clock.advance(REPEATED_EVERY_S / 2)
    raise_and_log(log)
    assert caplog.messages == ["it failed", "it failed (1 such errors were not logged)"]


def raise_and_log(log: ErrorLog) -> None:
    try:
        raise ValueError
    except ValueError:
        log.exception("it failed")


# --- engines side by side ---------------------------------------------------------------------------------------------


def test_engines_of_different_kinds_serve_one_queue_and_one_that_hangs_stops_no_other() -> None:
    first, second = Hanging(), FakeEngine(packed=True, streams=2)
    with queueing(first, batch_timeout=TIMEOUT_S) as served:
        served.runner.add_engine(second, Capacity(2, 12))
        second.hold()
        requests = [served.ask([number] * 4) for number in range(1, 19)]
        assert first.entered.wait(PATIENCE)
        second.let()
        until(lambda: sum(not request.done.is_set() for request in requests) == len(first.batches[0].inputs))
        served.runner.tick(TIMEOUT_S)
        assert served.runner.healthy, "the other serves"
        answered = [request for request in requests if failed_or_checked(request)]
        assert len(answered) >= len(requests) - 1, "but for what hung alone"
        assert all(sum(map(len, ran.inputs)) <= 12 for ran in second.batches)
        served.ask([9]).check()
        first.gate.set()
    until(lambda: (first.closed, second.closed) == (1, 1))


def failed_or_checked(request: Request) -> bool:
    try:
        request.check()
    except InferenceError:
        return False
    return True


def test_two_engines_share_what_waits() -> None:
    first, second = FakeEngine(), FakeEngine(packed=True)
    with queueing(first) as served:
        served.runner.add_engine(second, second.capacity)
        first.hold()
        second.hold()
        request = served.ask(*[[number] for number in range(1, 7)])
        first.wait_for(1)
        second.wait_for(1)
        assert [len(engine.batches[0].inputs) for engine in (first, second)] == [3, 3]
        first.let()
        second.let()
        request.check()


def test_each_of_two_engines_that_hang_is_replaced() -> None:
    engines = [Hanging(), Hanging()]
    made: list[FakeEngine] = []

    def new_engine() -> FakeEngine:
        made.append(FakeEngine())
        return made[-1]

    with queueing(engines[0], new_engine=new_engine, batch_timeout=TIMEOUT_S) as served:
        served.runner.add_engine(engines[1], Capacity(1, 64))
        culprits = [served.ask([1]), served.ask([2])]
        for engine in engines:
            assert engine.entered.wait(PATIENCE)
        assert served.runner.healthy
        served.runner.tick(TIMEOUT_S)
        for culprit in culprits:
            with pytest.raises(InferenceError, match=TOO_LONG):
                culprit.rows()
        until(lambda: served.metric("tei_engine_replacements_total 2"))
        served.ask([3], [4]).check()
        for engine in engines:
            engine.gate.set()
        until(lambda: [engine.closed for engine in engines] == [1, 1])
    assert [engine.closed for engine in made] == [1, 1]
