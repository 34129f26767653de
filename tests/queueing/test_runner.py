"""The runner's threads: what runs together and when, what comes back to whom, failures, cancelling, the end."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
from running import queueing

from tests.fakes import PATIENCE, FakeClock, FakeEngine, until
from text_embeddings_inference.errors import InferenceError, OverloadedError
from text_embeddings_inference.types import Batch, Output


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
def test_rows_come_in_the_order_of_the_inputs(packed: bool, tokens: bool) -> None:
    with queueing(FakeEngine(packed=packed)) as served:
        request = served.ask([7], [1, 2, 3, 4], [5, 6], [9] * 40, [5, 6], tokens=tokens)
        request.check()
        assert sorted(ids for ran in served.engine.batches for ids in ran.inputs) == sorted(request.inputs)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_pooled_and_token_vectors_from_one_batch(packed: bool) -> None:
    with queueing(FakeEngine(packed=packed)) as served:
        served.engine.hold()
        first = served.ask([1])
        served.engine.wait_for(1)
        others = [served.ask([2, 3], tokens=True), served.ask([4]), served.ask([5, 6, 7], tokens=True)]
        served.engine.let()
        for request in (first, *others):
            request.check()
        assert [ran.tokens for ran in served.engine.batches] == [False, True]


def test_an_idle_engine_is_asked_at_once_and_has_all_cores() -> None:
    with queueing() as served:
        served.engine.hold()
        served.ask([1, 2])
        served.engine.wait_for(1)
        assert served.engine.batches[0].inputs == [[1, 2]]
        assert served.engine.batches[0].cores is None


def test_what_gathered_while_the_engine_was_busy_runs_together() -> None:
    with queueing() as served:
        served.engine.hold()
        served.ask([1])
        served.engine.wait_for(1)
        for id_ in range(2, 7):
            served.ask([id_])
        served.engine.let(1)
        served.engine.wait_for(2)
        assert served.engine.batches[1].inputs == [[2], [3], [4], [5], [6]]
        assert served.engine.batches[1].cores is None


def test_one_full_batch_is_formed_ahead() -> None:
    with queueing(FakeEngine(batch_tokens=8)) as served:
        served.engine.hold()
        served.ask([1])
        served.engine.wait_for(1)
        served.ask([2] * 4)
        served.ask([3] * 4)
        served.engine.wait_for(2)  # while the first is held
        assert served.engine.batches[1].inputs == [[2] * 4, [3] * 4]
        late = [served.ask([id_] * 4) for id_ in (4, 5, 6)]  # full again, but there is one ahead already
        served.engine.let()
        for request in late:
            request.check()
        assert served.sizes[:2] == [1, 2]


def test_what_waits_is_shared_out_between_idle_streams() -> None:
    with queueing(FakeEngine(streams=3)) as served:
        served.engine.hold()
        request = served.ask(*[[id_] for id_ in range(1, 7)])
        served.engine.wait_for(3)
        assert served.sizes == [2, 2, 2]
        assert [ran.cores for ran in served.engine.batches[:2]] == [8 // 3] * 2
        served.engine.let()
        request.check()


def test_a_small_request_does_not_wait_for_a_long_one_if_a_stream_is_free() -> None:
    with queueing(FakeEngine(streams=2)) as served:
        served.engine.hold()
        served.ask([1] * 50)
        served.engine.wait_for(1)
        served.ask([2])
        served.engine.wait_for(2)
        assert served.engine.batches[1].inputs == [[2]]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [6]),
        ({"max_batch_requests": 4}, [4, 2]),
        ({"max_batch_requests": 0}, [6]),
        ({"max_batch_tokens": 9}, [4, 2]),
    ],
)
def test_limits_of_a_batch(limits: dict[str, Any], expected: list[int]) -> None:
    with queueing(FakeEngine(batch_tokens=12), **limits) as served:
        served.ask(*[[id_, id_] for id_ in range(1, 7)]).check()
        assert served.sizes == expected


def test_so_many_tokens_may_wait() -> None:
    with queueing(max_queued_tokens=10) as served:
        served.engine.hold()
        first = served.ask([1])
        served.engine.wait_for(1)
        alone = served.ask([2] * 12)  # nothing else waits
        with pytest.raises(OverloadedError):
            served.ask([3])
        served.runner.cancel(alone.group)
        fitting = served.ask([4] * 10)
        served.engine.let()
        first.check()
        fitting.check()


def test_cancelled_requests_are_not_run() -> None:
    with queueing() as served:
        served.engine.hold()
        first = served.ask([1])
        served.engine.wait_for(1)
        left, stayed = served.ask([2], [3]), served.ask([4])
        served.runner.cancel(left.group)
        assert served.metric('te_request_failure{err="dropped"} 2')
        assert served.metric("te_queue_size 1")
        served.engine.let()
        first.check()
        stayed.check()
        assert not left.done.is_set()
        assert [ran.inputs for ran in served.engine.batches] == [[[1]], [[4]]]


def test_a_request_is_cancelled_while_a_part_of_it_runs() -> None:
    with queueing(max_batch_requests=1) as served:
        served.engine.hold()
        request = served.ask([1], [2], [3])
        served.engine.wait_for(1)
        served.runner.cancel(request.group)
        served.engine.let()
        served.ask([4]).check()
        assert [ran.inputs for ran in served.engine.batches] == [[[1]], [[4]]]
        assert not request.done.is_set()


def test_a_request_is_cancelled_after_its_answer() -> None:
    with queueing() as served:
        request = served.ask([1])
        request.check()
        served.runner.cancel(request.group)
        assert not served.metric('te_request_failure{err="dropped"} 0')
        served.ask([2]).check()


@pytest.mark.parametrize("place", range(8))
def test_a_bad_input_fails_alone(place: int) -> None:
    with queueing() as served:
        served.engine.bad_ids = {13}
        served.engine.hold()
        served.ask([99])
        served.engine.wait_for(1)
        requests = [served.ask([13 if number == place else 1, number]) for number in range(8)]
        served.engine.let()
        for number, request in enumerate(requests):
            if number == place:
                with pytest.raises(InferenceError, match=r"^Backend error: the engine failed on this input") as caught:
                    request.rows()
                assert str(caught.value.__cause__) == f"bad input [13, {place}]"
                assert caught.value.inputs == 1
            else:
                request.check()
        assert served.sizes[1:3] == [8, 4]
        assert len(served.sizes) == 1 + 7, "8; 4 and 4; 2 and 2; 1 and 1"


def test_the_first_bad_input_is_the_error_of_its_request() -> None:
    with queueing() as served:
        served.engine.bad_ids = {13, 14}
        with pytest.raises(InferenceError) as caught:
            served.ask([1], [14, 14], [13]).rows()
        assert str(caught.value.__cause__) == "bad input [14, 14]"
        assert (caught.value.inputs, caught.value.index) == (2, 1)
        served.ask([1]).check()


def test_an_exception_without_text_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def out_of_memory(batch: Batch) -> None:
        raise MemoryError

    with queueing(FakeEngine(on_run=out_of_memory)) as served, pytest.raises(InferenceError):
        served.ask([1]).rows()
    assert caplog.messages[0] == "the engine failed on an input of 1 tokens: MemoryError"


class Broken(FakeEngine):
    """Forgets the last row of its output."""

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        output = super().run(batch, tokens=tokens, cores=cores)
        return Output(output.pooled[:-1], output.tokens)


def test_an_engine_that_gives_too_little_leaves_no_request_waiting() -> None:
    with queueing(Broken()) as served:
        for _ in range(5):  # more than there are threads
            with pytest.raises(InferenceError):
                served.ask([1], [2, 3]).rows()


def test_times_of_a_row() -> None:
    clock = FakeClock()
    with queueing(FakeEngine(on_run=lambda batch: clock.advance(batch.tokens)), clock) as served:
        served.engine.hold()
        first = served.ask([1] * 8)
        served.engine.wait_for(1)
        clock.advance(0.5)
        others = served.ask([2], [3])
        served.engine.let(1)
        [row] = first.rows()
        assert (row.queue, row.inference) == (0, 8.5)
        served.engine.let()
        assert [(row.queue, row.inference) for row in others.rows()] == [(8, 2), (8, 2)]


def test_metrics_of_queue_and_batches() -> None:
    with queueing() as served:
        assert served.metrics.render() == b""
        served.engine.hold()
        served.ask([1] * 5)
        served.engine.wait_for(1)
        last = served.ask([2] * 5, [3] * 7)
        assert served.metric("te_queue_size 2")
        served.engine.let()
        last.check()
        for line in (
            "te_queue_size 0",
            "te_batch_next_size_count 2",
            "te_batch_next_size_sum 3",
            "te_batch_next_tokens_sum 17",
            "tei_batch_tokens_total 17",
            "tei_batch_computed_tokens_total 19",
            "tei_batch_budget_tokens_total 128",
        ):
            assert served.metric(line), line


def test_age_of_the_queue_and_time_the_engine_is_busy() -> None:
    clock = FakeClock()
    with queueing(FakeEngine(streams=2), clock) as served:
        served.engine.hold()
        first = served.ask([1])
        served.engine.wait_for(1)
        clock.advance(2)
        second = served.ask([2])
        served.engine.wait_for(2)
        waiting = [served.ask([3]), served.ask([4])]
        assert served.metric("tei_queue_age_seconds 0")
        clock.advance(3)
        assert served.metric("te_queue_size 2")
        assert served.metric("tei_queue_age_seconds 3")
        served.engine.let()
        for request in (first, second, *waiting):
            request.rows()
        assert served.metric("tei_engine_busy_seconds_total 5")
        assert served.metric("tei_queue_age_seconds 0")
        clock.advance(100)
        served.ask([5]).rows()
        assert served.metric("tei_engine_busy_seconds_total 5")


def test_closing_answers_what_was_accepted_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with queueing(FakeEngine(streams=2)) as served:
        served.engine.hold()
        running = [served.ask([1]), served.ask([2])]
        served.engine.wait_for(2)
        queued = served.ask([3])  # the third thread waits: it is too little to be formed ahead
        closing = threading.Thread(target=served.close)
        closing.start()
        until(lambda: served.runner.closed)
        served.engine.let()
        closing.join(2 * PATIENCE)
        for request in (*running, queued):
            request.check()
    assert before.issuperset(threading.enumerate())


def test_nothing_is_taken_after_the_end() -> None:
    with queueing() as served:
        served.close()
        with pytest.raises(InferenceError, match=r"^Backend error: the model is closed$"):
            served.ask([1])
        served.close()  # once more does no harm


def test_an_answer_is_freed_with_its_request() -> None:
    outputs: list[weakref.ref[Any]] = []

    class Watched(FakeEngine):
        def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
            output = super().run(batch, tokens=tokens, cores=cores)
            outputs.append(weakref.ref(output.pooled))
            return output

    gc.disable()
    try:
        with queueing(Watched()) as served:
            served.ask([1], [2]).check()
            until(lambda: outputs[0]() is None)
    finally:
        gc.enable()


@dataclass(frozen=True)
class Plan:
    """A request that a client of the next test will make."""

    inputs: list[list[int]]
    tokens: bool
    leaves: bool


def plans(seed: int) -> list[Plan]:
    rng = random.Random(seed)

    def inputs() -> list[list[int]]:
        return [rng.choices(range(1, 100), k=rng.randint(1, 20)) for _ in range(rng.randint(1, 6))]

    return [Plan(inputs(), tokens=rng.random() < 0.3, leaves=rng.random() < 0.2) for _ in range(40)]


def test_many_threads_that_ask_and_leave() -> None:
    planned = [plans(seed) for seed in range(6)]
    answered: list[Plan] = []
    with queueing(FakeEngine(streams=2, batch_tokens=32), max_batch_requests=5) as served:

        def client(requests: list[Plan]) -> None:
            for plan in requests:
                request = served.ask(*plan.inputs, tokens=plan.tokens)
                if plan.leaves:
                    served.runner.cancel(request.group)
                else:
                    request.check()
                    answered.append(plan)

        clients = [threading.Thread(target=client, args=(requests,)) for requests in planned]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(2 * PATIENCE)
    assert len(answered) == sum(not plan.leaves for requests in planned for plan in requests)
    assert served.metric("te_queue_size 0")
