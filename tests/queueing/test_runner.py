"""The runner's threads: what runs together and when, what comes back to whom, failures, cancelling, the end."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
from running import house

from tests.fakes import PATIENCE, FakeClock, FakeEngine, until
from text_embeddings_inference.errors import InferenceError, OverloadedError
from text_embeddings_inference.types import Batch, Output


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
def test_rows_come_in_the_order_of_the_inputs(packed: bool, tokens: bool) -> None:
    with house(FakeEngine(packed=packed)) as home:
        request = home.ask([7], [1, 2, 3, 4], [5, 6], [9] * 40, [5, 6], tokens=tokens)
        request.check()
        assert sorted(ids for ran in home.engine.batches for ids in ran.inputs) == sorted(request.inputs)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_pooled_and_token_vectors_from_one_batch(packed: bool) -> None:
    with house(FakeEngine(packed=packed)) as home:
        home.engine.hold()
        first = home.ask([1])
        home.engine.wait_for(1)
        others = [home.ask([2, 3], tokens=True), home.ask([4]), home.ask([5, 6, 7], tokens=True)]
        home.engine.let()
        for request in (first, *others):
            request.check()
        assert [ran.tokens for ran in home.engine.batches] == [False, True]


def test_an_idle_engine_is_asked_at_once_and_has_all_cores() -> None:
    with house() as home:
        home.engine.hold()
        home.ask([1, 2])
        home.engine.wait_for(1)
        assert home.engine.batches[0].inputs == [[1, 2]]
        assert home.engine.batches[0].cores is None


def test_what_gathered_while_the_engine_was_busy_runs_together() -> None:
    with house() as home:
        home.engine.hold()
        home.ask([1])
        home.engine.wait_for(1)
        for id_ in range(2, 7):
            home.ask([id_])
        home.engine.let(1)
        home.engine.wait_for(2)
        assert home.engine.batches[1].inputs == [[2], [3], [4], [5], [6]]
        assert home.engine.batches[1].cores is None


def test_one_full_batch_is_formed_ahead() -> None:
    with house(FakeEngine(batch_tokens=8)) as home:
        home.engine.hold()
        home.ask([1])
        home.engine.wait_for(1)
        home.ask([2] * 4)
        home.ask([3] * 4)
        home.engine.wait_for(2)  # while the first is held
        assert home.engine.batches[1].inputs == [[2] * 4, [3] * 4]
        late = [home.ask([id_] * 4) for id_ in (4, 5, 6)]  # full again, but there is one ahead already
        home.engine.let()
        for request in late:
            request.check()
        assert home.sizes[:2] == [1, 2]


def test_what_waits_is_shared_out_between_idle_streams() -> None:
    with house(FakeEngine(streams=3)) as home:
        home.engine.hold()
        request = home.ask(*[[id_] for id_ in range(1, 7)])
        home.engine.wait_for(3)
        assert home.sizes == [2, 2, 2]
        assert [ran.cores for ran in home.engine.batches[:2]] == [8 // 3] * 2
        home.engine.let()
        request.check()


def test_a_small_request_does_not_wait_for_a_long_one_if_a_stream_is_free() -> None:
    with house(FakeEngine(streams=2)) as home:
        home.engine.hold()
        home.ask([1] * 50)
        home.engine.wait_for(1)
        home.ask([2])
        home.engine.wait_for(2)
        assert home.engine.batches[1].inputs == [[2]]


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
    with house(FakeEngine(batch_tokens=12), **limits) as home:
        home.ask(*[[id_, id_] for id_ in range(1, 7)]).check()
        assert home.sizes == expected


def test_so_many_tokens_may_wait() -> None:
    with house(max_queued_tokens=10) as home:
        home.engine.hold()
        first = home.ask([1])
        home.engine.wait_for(1)
        alone = home.ask([2] * 12)  # nothing else waits
        with pytest.raises(OverloadedError):
            home.ask([3])
        home.runner.cancel(alone.group)
        fitting = home.ask([4] * 10)
        home.engine.let()
        first.check()
        fitting.check()


def test_cancelled_requests_are_not_run() -> None:
    with house() as home:
        home.engine.hold()
        first = home.ask([1])
        home.engine.wait_for(1)
        left, stayed = home.ask([2], [3]), home.ask([4])
        home.runner.cancel(left.group)
        assert home.metric('te_request_failure{err="dropped"} 2')
        assert home.metric("te_queue_size 1")
        home.engine.let()
        first.check()
        stayed.check()
        assert not left.done.is_set()
        assert [ran.inputs for ran in home.engine.batches] == [[[1]], [[4]]]


def test_a_request_is_cancelled_while_a_part_of_it_runs() -> None:
    with house(max_batch_requests=1) as home:
        home.engine.hold()
        request = home.ask([1], [2], [3])
        home.engine.wait_for(1)
        home.runner.cancel(request.group)
        home.engine.let()
        home.ask([4]).check()
        assert [ran.inputs for ran in home.engine.batches] == [[[1]], [[4]]]
        assert not request.done.is_set()


def test_a_request_is_cancelled_after_its_answer() -> None:
    with house() as home:
        request = home.ask([1])
        request.check()
        home.runner.cancel(request.group)
        assert not home.metric('te_request_failure{err="dropped"} 0')
        home.ask([2]).check()


@pytest.mark.parametrize("place", range(8))
def test_a_bad_input_fails_alone(place: int) -> None:
    with house() as home:
        home.engine.bad_ids = {13}
        home.engine.hold()
        home.ask([99])
        home.engine.wait_for(1)
        requests = [home.ask([13 if number == place else 1, number]) for number in range(8)]
        home.engine.let()
        for number, request in enumerate(requests):
            if number == place:
                with pytest.raises(InferenceError, match=r"^Backend error: the engine failed on this input") as caught:
                    request.rows()
                assert str(caught.value.__cause__) == f"bad input [13, {place}]"
                assert caught.value.inputs == 1
            else:
                request.check()
        assert home.sizes[1:3] == [8, 4]
        assert len(home.sizes) == 1 + 7, "8; 4 and 4; 2 and 2; 1 and 1"


def test_the_first_bad_input_is_the_error_of_its_request() -> None:
    with house() as home:
        home.engine.bad_ids = {13, 14}
        with pytest.raises(InferenceError) as caught:
            home.ask([1], [14, 14], [13]).rows()
        assert str(caught.value.__cause__) == "bad input [14, 14]"
        assert (caught.value.inputs, caught.value.index) == (2, 1)
        home.ask([1]).check()


def test_an_exception_without_text_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def out_of_memory(batch: Batch) -> None:
        raise MemoryError

    with house(FakeEngine(on_run=out_of_memory)) as home, pytest.raises(InferenceError):
        home.ask([1]).rows()
    assert caplog.messages[0] == "the engine failed on an input of 1 tokens: MemoryError"


class Broken(FakeEngine):
    """Forgets the last row of its output."""

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        output = super().run(batch, tokens=tokens, cores=cores)
        return Output(output.pooled[:-1], output.tokens)


def test_an_engine_that_gives_too_little_leaves_no_request_waiting() -> None:
    with house(Broken()) as home:
        for _ in range(5):  # more than there are threads
            with pytest.raises(InferenceError):
                home.ask([1], [2, 3]).rows()


def test_times_of_a_row() -> None:
    clock = FakeClock()
    with house(FakeEngine(on_run=lambda batch: clock.advance(batch.tokens)), clock) as home:
        home.engine.hold()
        first = home.ask([1] * 8)
        home.engine.wait_for(1)
        clock.advance(0.5)
        others = home.ask([2], [3])
        home.engine.let(1)
        [row] = first.rows()
        assert (row.queue, row.inference) == (0, 8.5)
        home.engine.let()
        assert [(row.queue, row.inference) for row in others.rows()] == [(8, 2), (8, 2)]


def test_metrics_of_queue_and_batches() -> None:
    with house() as home:
        assert home.metrics.render() == b""
        home.engine.hold()
        home.ask([1] * 5)
        home.engine.wait_for(1)
        last = home.ask([2] * 5, [3] * 7)
        assert home.metric("te_queue_size 2")
        home.engine.let()
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
            assert home.metric(line), line


def test_age_of_the_queue_and_time_the_engine_is_busy() -> None:
    clock = FakeClock()
    with house(FakeEngine(streams=2), clock) as home:
        home.engine.hold()
        first = home.ask([1])
        home.engine.wait_for(1)
        clock.advance(2)
        second = home.ask([2])
        home.engine.wait_for(2)
        waiting = [home.ask([3]), home.ask([4])]
        assert home.metric("tei_queue_age_seconds 0")
        clock.advance(3)
        assert home.metric("te_queue_size 2")
        assert home.metric("tei_queue_age_seconds 3")
        home.engine.let()
        for request in (first, second, *waiting):
            request.rows()
        assert home.metric("tei_engine_busy_seconds_total 5")
        assert home.metric("tei_queue_age_seconds 0")
        clock.advance(100)
        home.ask([5]).rows()
        assert home.metric("tei_engine_busy_seconds_total 5")


def test_closing_answers_what_was_accepted_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with house(FakeEngine(streams=2)) as home:
        home.engine.hold()
        running = [home.ask([1]), home.ask([2])]
        home.engine.wait_for(2)
        queued = home.ask([3])  # the third thread waits: it is too little to be formed ahead
        closing = threading.Thread(target=home.close)
        closing.start()
        until(lambda: home.runner.closed)
        home.engine.let()
        closing.join(2 * PATIENCE)
        for request in (*running, queued):
            request.check()
    assert threading.active_count() == before


def test_nothing_is_taken_after_the_end() -> None:
    with house() as home:
        home.close()
        with pytest.raises(InferenceError, match=r"^Backend error: the model is closed$"):
            home.ask([1])
        home.close()  # once more does no harm


def test_an_answer_is_freed_with_its_request() -> None:
    outputs: list[weakref.ref[Any]] = []

    class Watched(FakeEngine):
        def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
            output = super().run(batch, tokens=tokens, cores=cores)
            outputs.append(weakref.ref(output.pooled))
            return output

    gc.disable()
    try:
        with house(Watched()) as home:
            home.ask([1], [2]).check()
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
    with house(FakeEngine(streams=2, batch_tokens=32), max_batch_requests=5) as home:

        def client(requests: list[Plan]) -> None:
            for plan in requests:
                request = home.ask(*plan.inputs, tokens=plan.tokens)
                if plan.leaves:
                    home.runner.cancel(request.group)
                else:
                    request.check()
                    answered.append(plan)

        clients = [threading.Thread(target=client, args=(requests,)) for requests in planned]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(2 * PATIENCE)
    assert len(answered) == sum(not plan.leaves for requests in planned for plan in requests)
    assert home.metric("te_queue_size 0")
