"""The queue and the batches in the engine as the state machine they are.

Any order of arrivals, cancellations, failures, hangs and engines that come and go: every job leaves exactly once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FakeEngine
from text_embeddings_inference.engines.base import Capacity
from text_embeddings_inference.errors import InferenceError
from text_embeddings_inference.queueing.dispatch import Dispatch
from text_embeddings_inference.queueing.jobs import Job, JobGroup, Row
from text_embeddings_inference.queueing.slots import BROKEN_AFTER_CANARIES, CANARY_EVERY_S, Flight, Slot, State
from text_embeddings_inference.settings.limits import BatchLimits
from text_embeddings_inference.types import Encoding

EXAMPLES = int(os.environ.get("RANDOM_STEPS", "8000")) // 40
"""RANDOM_STEPS=100000 takes half a minute. An example has 40 steps and more, and ends by answering all that is left."""
DEADLINE_S = 10
LIMITS = BatchLimits(batch_timeout=DEADLINE_S)


def slot(*, streams: int = 1, batch_tokens: int = 64, packed: bool = False) -> Slot:
    return Slot.of(FakeEngine(packed=packed), Capacity(streams, batch_tokens), LIMITS)


def dispatch(*slots: Slot, max_entries: int | None = None) -> Dispatch:
    """With the slots given, or one."""
    queue = Dispatch(max_entries=max_entries)
    for opened in slots or (slot(),):
        queue.wanted += 1
        queue.add_slot(opened)
    return queue


def request(*lengths: int) -> JobGroup:
    encodings = [Encoding(np.ones(length, np.int32), None, length) for length in lengths]
    return JobGroup(encodings, tokens=False, on_done=lambda: None)


def queued(queue: Dispatch, *lengths: int) -> list[Job]:
    jobs = request(*lengths).jobs(0)
    queue.add(jobs)
    return jobs


def take(queue: Dispatch, place: int = 0) -> Flight:
    flight = queue.take(queue.slots[place])
    assert flight is not None
    return flight


def test_a_batch_that_fails_is_halved() -> None:
    queue = dispatch()
    jobs = queued(queue, 1, 1, 1)
    assert queue.failed(take(queue)) == []
    assert queue.healthy
    assert queue.finished(take(queue), 1) == jobs[:1]
    assert queue.failed(take(queue)) == []
    assert queue.failed(take(queue)) == jobs[1:2]
    assert queue.finished(take(queue), 1) == jobs[2:]
    assert queue.take(queue.slots[0]) is None, "a batch went well: no canary"


def test_a_canary_decides_where_the_last_batch_failed() -> None:
    queue = dispatch()
    [job] = queued(queue, 1)
    assert queue.failed(take(queue)) == [job]
    queued(queue, 1)
    canary = take(queue)
    assert canary.is_canary, "before what waits"
    assert queue.healthy
    queue.failed(canary)
    assert not queue.healthy
    queue.finished(take(queue), 1)
    assert queue.healthy


def test_canaries_go_on_until_the_engine_is_broken_or_works() -> None:
    queue = dispatch()
    [tried] = queue.slots
    queued(queue, 1)
    queue.failed(take(queue))
    for _ in range(BROKEN_AFTER_CANARIES):
        assert not tried.is_broken
        queue.failed(take(queue))
        assert queue.take(tried) is None
        queue.pass_time(CANARY_EVERY_S)
    assert tried.is_broken
    queue.finished(take(queue), 1)
    assert queue.healthy
    assert not tried.is_broken


def test_rows_with_nan_run_again_without_the_others() -> None:
    queue = dispatch()
    jobs = queued(queue, 1, 1, 1, 1)
    assert queue.finished(take(queue), 1, jobs[1:3]) == [jobs[0], jobs[3]]
    again = take(queue)
    assert again.jobs == jobs[1:3]
    assert queue.finished(again, 1, jobs[1:3]) == []
    assert queue.finished(take(queue), 1, jobs[1:2]) == jobs[1:2], "alone, it is its own"
    assert queue.finished(take(queue), 1) == jobs[2:3]


def test_what_hangs_runs_alone_once_more() -> None:
    queue = dispatch()
    jobs = queued(queue, 1, 1, 1)
    flight = take(queue)
    assert queue.pass_time(DEADLINE_S - 1) == []
    assert queue.pass_time(1) == [flight]
    assert flight.lost
    assert not queue.healthy
    assert queue.missing == 1
    for job in jobs:
        if queue.missing:
            queue.add_slot(slot())
        alone = take(queue, -1)
        assert alone.jobs == [job]
        if job is jobs[1]:
            assert queue.pass_time(DEADLINE_S) == [alone]
        else:
            queue.finished(alone, 1)
    assert queue.idle


def test_what_waits_inside_of_the_engine_for_a_stream_has_time() -> None:
    queue = dispatch()
    queued(queue, 64, 64)
    first, ahead = take(queue), take(queue)
    assert queue.pass_time(DEADLINE_S - 1) == []
    queue.finished(first, DEADLINE_S)
    assert queue.pass_time(DEADLINE_S - 1) == []
    assert queue.pass_time(1) == [ahead]


def test_what_is_in_an_engine_that_is_suspended_or_retired_may_still_come_back() -> None:
    queue = dispatch(slot(streams=3))
    jobs = queued(queue, 64, 64, 64, 64)
    hanging, old, older = take(queue), take(queue), take(queue)
    hanging.left = 1
    assert queue.pass_time(1) == [hanging]
    assert queue.finished(old, 1) == jobs[1:2]
    assert queue.slots[0].state is State.SUSPENDED
    queue.add_slot(slot())
    assert queue.slots[0].state is State.RETIRED
    new = take(queue, 1)
    assert queue.finished(older, 1) == jobs[2:3]
    assert not queue.late_return(hanging), "another has its place"
    assert queue.finished(new, 1) == jobs[3:4]
    assert queue.idle


def test_an_engine_serves_again_when_its_last_lost_batch_returns() -> None:
    queue = dispatch(slot(streams=2))
    queued(queue, 64, 64)
    lost = [take(queue), take(queue)]
    assert queue.pass_time(DEADLINE_S) == lost
    assert not queue.late_return(lost[0])
    assert queue.late_return(lost[1])
    assert queue.healthy
    assert queue.missing == 0


def test_batches_are_smaller_for_a_while_after_the_memory_ran_out() -> None:
    queue = dispatch()
    budget = queue.slots[0].budget
    queued(queue, *[4] * 16)
    flight = take(queue)
    assert len(flight.jobs) == 16
    queue.failed(flight, out_of_memory=True)
    assert budget.tokens == 32
    for tokens in (32, 64):
        assert budget.tokens == tokens
        queue.pass_time(60)
    assert budget.tokens == 64


# --- several engines --------------------------------------------------------------------------------------------------


def test_engines_take_by_their_own_cost_and_capacity() -> None:
    queue = dispatch(slot(batch_tokens=20), slot(packed=True, batch_tokens=100))
    queued(queue, *[10, 40] * 6)
    assert [job.length for job in take(queue, 0).jobs] == [10, 10]
    assert [job.length for job in take(queue, 1).jobs] == [40, 40, 10]


def test_a_batch_that_is_tried_again_fits_the_engine_that_takes_it() -> None:
    queue = dispatch(slot(batch_tokens=64), slot(batch_tokens=8))
    jobs = queued(queue, *[4] * 16)
    queue.pass_time(1)
    large = take(queue, 0)
    assert len(large.jobs) == 8, "what waits is shared out between the two"
    queue.failed(large)
    assert take(queue, 1).jobs == jobs[:2]
    assert take(queue, 0).jobs == jobs[2:4]


def test_an_engine_is_fed_ahead_only_while_no_other_is_idle() -> None:
    queue = dispatch(slot(batch_tokens=8), slot(batch_tokens=8))
    queued(queue, *[4] * 12)
    take(queue, 0)
    assert queue.take(queue.slots[0]) is None
    take(queue, 1)
    assert len(take(queue, 0).jobs) == 2


def test_one_engine_hangs_and_the_others_go_on() -> None:
    queue = dispatch(slot(), slot())
    queued(queue, 1)
    hanging = take(queue, 0)
    [other] = queued(queue, 1)
    assert queue.pass_time(DEADLINE_S) == [hanging]
    assert queue.healthy
    assert queue.missing == 1
    assert queue.take(queue.slots[0]) is None
    assert queue.finished(take(queue, 1), 1) == [other]


# --- any order --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class World:
    """What the threads would do, one step at a time. culprits: jobs that make whatever batch they are in go wrong."""

    queue: Dispatch = field(default_factory=lambda: dispatch(slot(), slot(batch_tokens=30, packed=True), max_entries=7))
    requests: list[JobGroup] = field(default_factory=list)
    culprits: dict[Job, str] = field(default_factory=dict)
    flights: list[Flight] = field(default_factory=list)
    lost: list[Flight] = field(default_factory=list)

    def ask(self, lengths: list[int], culprit: str) -> None:
        group = request(*lengths)
        jobs = group.jobs(0)
        if culprit:
            self.culprits[jobs[-1]] = culprit
        self.requests.append(group)
        self.queue.add(jobs)

    def cancel(self, number: int) -> None:
        if self.requests:
            self.requests[number % len(self.requests)].cancelled = True
            self.queue.drop_cancelled()

    def take(self, place: int, streams: int) -> None:
        if not self.queue.slots:
            return
        taker = self.queue.slots[place % len(self.queue.slots)]
        if len(taker.running) <= 1:  # an engine that was measured has fewer streams than before
            taker.set_capacity(Capacity(streams, taker.capacity.batch_tokens), LIMITS)
        flight = self.queue.take(taker)
        if flight is not None:
            assert taker.state is State.SERVING
            assert len(flight.jobs) == 1 or flight.is_canary or flight.tokens <= taker.budget.tokens
            self.flights.append(flight)

    def end(self, number: int) -> None:
        """A batch ends as its inputs make it, unless one of them makes it hang."""
        ending = [flight for flight in self.flights if "hang" not in self.kinds(flight)]
        if not ending:
            return
        flight = ending[number % len(ending)]
        self.flights.remove(flight)
        kinds = self.kinds(flight)
        if "raise" in kinds or "memory" in kinds:
            self.answer(self.queue.failed(flight, out_of_memory="memory" in kinds))
        elif "nan" in kinds:  # it spreads to every second row
            spoilt = [job for place, job in enumerate(flight.jobs) if place % 2 == 0 or self.culprits.get(job) == "nan"]
            self.answer(self.queue.finished(flight, 1, spoilt))
        else:
            self.answer(self.queue.finished(flight, 1))

    def kinds(self, flight: Flight) -> list[str]:
        return [self.culprits.get(job, "") for job in flight.jobs]

    def pass_time(self, seconds: int) -> None:
        for flight in self.queue.pass_time(seconds):
            self.flights.remove(flight)
            self.lost.append(flight)
            assert flight.slot.state is not State.SERVING
            if len(flight.jobs) == 1:
                self.answer(flight.jobs)

    def late(self, number: int) -> None:
        """A batch that hung returns."""
        if self.lost:
            flight = self.lost.pop(number % len(self.lost))
            before = flight.slot.state
            serves = self.queue.late_return(flight)
            assert serves == (before is State.SUSPENDED and flight.slot.state is State.SERVING)

    def retire(self, number: int) -> None:
        serving = self.queue.serving
        if serving:
            serving[number % len(serving)].stop(State.RETIRED)

    def replace(self) -> None:
        if self.queue.missing:
            self.queue.add_slot(slot())
        for old in list(self.queue.slots):  # its threads end
            if old.state is State.RETIRED and not (old.running or old.hanging):
                self.queue.slots.remove(old)

    def fail_waiting(self) -> None:
        if not self.queue.serving:
            self.answer(self.queue.clear())

    def abort(self) -> None:
        self.answer(self.queue.clear() + self.queue.abandon())
        assert all(flight.lost for flight in self.flights)
        self.lost += self.flights
        self.flights.clear()

    def answer(self, jobs: object) -> None:
        assert isinstance(jobs, list | tuple)
        for job in jobs:
            job.group.deliver(job, InferenceError("answered"))  # raises the second time

    def check(self) -> None:
        waiting = len(self.queue) + sum(len(flight.jobs) for flight in self.flights)
        asked = sum(len(group.encodings) for group in self.requests if not group.cancelled)
        gone = sum(answered(group) for group in self.requests if not group.cancelled)
        cancelled = sum(job.cancelled for flight in self.flights for job in flight.jobs)
        assert asked - gone == waiting - cancelled, "a job was lost"
        assert sum(old.hanging for old in self.queue.slots) == len(self.lost)
        assert len(self.queue.serving) <= self.queue.wanted


def answered(group: JobGroup) -> int:
    return sum(isinstance(row, Row | InferenceError) for row in group.rows)


SIZES = st.lists(st.integers(1, 70), min_size=1, max_size=9)
CULPRITS = st.sampled_from(["", "", "", "", "raise", "memory", "nan", "hang"])
STEPS = st.one_of(
    st.tuples(st.just("ask"), SIZES, CULPRITS),
    st.tuples(st.just("ask"), SIZES, CULPRITS),
    st.tuples(st.just("take"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("take"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("pass_time"), st.integers(1, 15)),
    st.tuples(st.sampled_from(["late", "retire"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["replace", "replace", "fail_waiting", "abort"])),
)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(steps=st.lists(STEPS, min_size=40, max_size=80))
def test_no_job_is_lost_and_none_is_answered_twice(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
        world.check()
    for _ in range(2000):  # whatever happened, it comes to an end
        if world.queue.idle and not world.flights:
            break
        world.replace()
        world.take(world.queue.slots.index(world.queue.serving[0]), 1)
        world.end(0)
        world.pass_time(4)
        world.check()
    assert world.queue.idle
    for group in world.requests:
        assert group.cancelled or answered(group) == len(group.encodings)
