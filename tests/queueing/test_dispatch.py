"""The queue and the batches in the engine as the state machine they are.

Any order of arrivals, cancellations, failures, hangs and engines that come and go: every job leaves exactly once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from text_embeddings_inference.errors import InferenceError
from text_embeddings_inference.queueing.budget import FixedDeadline
from text_embeddings_inference.queueing.dispatch import CANARY_EVERY_S, GIVE_UP_AFTER, Dispatch, Flight
from text_embeddings_inference.queueing.jobs import Job, Pending, Row
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import Encoding

EXAMPLES = int(os.environ.get("RANDOM_STEPS", "8000")) // 40
"""RANDOM_STEPS=100000 takes half a minute. An example has 40 steps and more, and ends by answering all that is left."""
DEADLINE_S = 10.0


def padded(longest: int, count: int, tokens: int) -> int:
    return longest * count


def dispatch(**limits: int) -> Dispatch:
    return Dispatch.of(padded, Limits(**limits), FixedDeadline(DEADLINE_S), batch_tokens=64)


def request(*lengths: int) -> Pending:
    encodings = [Encoding(np.ones(length, np.int32), None, length) for length in lengths]
    return Pending(encodings, tokens=False, on_done=lambda: None)


def queued(queue: Dispatch, *lengths: int) -> list[Job]:
    jobs = request(*lengths).jobs(0)
    queue.add(jobs)
    return jobs


def take(queue: Dispatch, streams: int = 1) -> Flight:
    flight = queue.take(streams)
    assert flight is not None
    return flight


def test_a_batch_that_fails_is_halved() -> None:
    queue = dispatch()
    jobs = queued(queue, 1, 1, 1)
    assert queue.crashed(take(queue)) == []
    assert queue.healthy
    assert queue.landed(take(queue), 1) == jobs[:1]
    assert queue.crashed(take(queue)) == []
    assert queue.crashed(take(queue)) == jobs[1:2]
    assert queue.landed(take(queue), 1) == jobs[2:]
    assert queue.take(1) is None, "a batch went well: no canary"


def test_a_canary_decides_where_the_last_batch_failed() -> None:
    queue = dispatch()
    [job] = queued(queue, 1)
    assert queue.crashed(take(queue)) == [job]
    queued(queue, 1)
    canary = take(queue)
    assert canary.is_canary, "before what waits"
    assert queue.healthy
    queue.crashed(canary)
    assert not queue.healthy
    queue.landed(take(queue), 1)
    assert queue.healthy


def test_canaries_go_on_until_the_engine_is_given_up_or_works() -> None:
    queue = dispatch()
    queued(queue, 1)
    queue.crashed(take(queue))
    for _ in range(GIVE_UP_AFTER):
        assert not queue.is_broken
        queue.crashed(take(queue))
        assert queue.take(1) is None
        queue.pass_time(CANARY_EVERY_S)
    assert queue.is_broken
    queue.landed(take(queue), 1)
    assert queue.healthy
    assert not queue.is_broken


def test_rows_with_nan_run_again_without_the_others() -> None:
    queue = dispatch()
    jobs = queued(queue, 1, 1, 1, 1)
    assert queue.landed(take(queue), 1, jobs[1:3]) == [jobs[0], jobs[3]]
    again = take(queue)
    assert again.jobs == jobs[1:3]
    assert queue.landed(again, 1, jobs[1:3]) == []
    assert queue.landed(take(queue), 1, jobs[1:2]) == jobs[1:2], "alone, it is its own"
    assert queue.landed(take(queue), 1) == jobs[2:3]


def test_what_hangs_runs_alone_once_more() -> None:
    queue = dispatch()
    jobs = queued(queue, 1, 1, 1)
    flight = take(queue)
    assert queue.pass_time(DEADLINE_S - 1) == []
    assert queue.pass_time(1) == [flight]
    assert flight.lost
    assert not queue.healthy
    for job in jobs:
        alone = take(queue)
        assert alone.jobs == [job]
        if job is jobs[1]:
            assert queue.pass_time(DEADLINE_S) == [alone]
        else:
            queue.landed(alone, 1)
    assert queue.idle


def test_what_waits_inside_of_the_engine_for_a_stream_has_time() -> None:
    queue = dispatch()
    queued(queue, 64, 64)
    first, ahead = take(queue), take(queue)
    assert queue.pass_time(DEADLINE_S - 1) == []
    queue.landed(first, DEADLINE_S)
    assert queue.pass_time(DEADLINE_S - 1) == []
    assert queue.pass_time(1) == [ahead]


def test_what_is_in_an_engine_that_was_given_up_may_still_land() -> None:
    queue = dispatch()
    jobs = queued(queue, 64, 64, 64)
    old = take(queue, 2)
    queue.leave_behind()
    queue.serve(padded, 64)
    new = take(queue, 1)
    assert queue.landed(old, 1) == jobs[:1]
    assert queue.landed(new, 1) == jobs[1:2]
    assert not queue.idle


def test_batches_are_smaller_for_a_while_after_the_memory_ran_out() -> None:
    queue = dispatch()
    queued(queue, *[4] * 16)
    assert len(take(queue).jobs) == 16
    queue.crashed(queue._running[0], out_of_memory=True)
    assert queue.scheduler.max_tokens == 32
    for tokens in (32, 64):
        assert queue.scheduler.max_tokens == tokens
        queue.pass_time(60)
    assert queue.scheduler.max_tokens == 64


# --- any order --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class World:
    """What the threads would do, one step at a time. culprits: jobs that make whatever batch they are in go wrong."""

    queue: Dispatch = field(default_factory=lambda: dispatch(max_batch_requests=7))
    requests: list[Pending] = field(default_factory=list)
    culprits: dict[Job, str] = field(default_factory=dict)
    flights: list[Flight] = field(default_factory=list)
    in_service: bool = True
    answers: int = 0

    def ask(self, lengths: list[int], culprit: str) -> None:
        pending = request(*lengths)
        jobs = pending.jobs(0)
        if culprit:
            self.culprits[jobs[-1]] = culprit
        self.requests.append(pending)
        self.queue.add(jobs)

    def cancel(self, number: int) -> None:
        if self.requests:
            self.requests[number % len(self.requests)].cancelled = True
            self.queue.drop_cancelled()

    def take(self, streams: int) -> None:
        flight = self.queue.take(streams) if self.in_service else None
        if flight is not None:
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
            self.answer(self.queue.crashed(flight, out_of_memory="memory" in kinds))
        elif "nan" in kinds:  # it spreads to every second row
            spoilt = [job for place, job in enumerate(flight.jobs) if place % 2 == 0 or self.culprits.get(job) == "nan"]
            self.answer(self.queue.landed(flight, 1, spoilt))
        else:
            self.answer(self.queue.landed(flight, 1))

    def kinds(self, flight: Flight) -> list[str]:
        return [self.culprits.get(job, "") for job in flight.jobs]

    def pass_time(self, seconds: int) -> None:
        overrun = self.queue.pass_time(seconds)
        for flight in overrun:
            self.flights.remove(flight)
            if len(flight.jobs) == 1:
                self.answer(flight.jobs)
        if any(not flight.behind for flight in overrun) and self.in_service:
            self.give_up()

    def give_up(self) -> None:
        self.in_service = False
        self.queue.leave_behind()

    def replace(self) -> None:
        if not self.in_service:
            self.in_service = True
            self.queue.serve(padded, 64)

    def lose_hope(self) -> None:
        if not self.in_service:
            self.answer(self.queue.clear())

    def abort(self) -> None:
        self.answer(self.queue.clear(flying=True))
        assert all(flight.lost for flight in self.flights)
        self.flights.clear()

    def answer(self, jobs: object) -> None:
        assert isinstance(jobs, list | tuple)
        for job in jobs:
            self.answers += 1
            job.pending.deliver(job, InferenceError("answered"))  # raises the second time

    def check(self) -> None:
        waiting = len(self.queue) + sum(len(flight.jobs) for flight in self.flights)
        asked = sum(len(pending.encodings) for pending in self.requests if not pending.cancelled)
        gone = sum(answered(pending) for pending in self.requests if not pending.cancelled)
        cancelled = sum(job.cancelled for flight in self.flights for job in flight.jobs)
        assert asked - gone == waiting - cancelled, "a job was lost"


def answered(pending: Pending) -> int:
    return sum(isinstance(row, Row | InferenceError) for row in pending.rows)


SIZES = st.lists(st.integers(1, 70), min_size=1, max_size=9)
CULPRITS = st.sampled_from(["", "", "", "", "raise", "memory", "nan", "hang"])
STEPS = st.one_of(
    st.tuples(st.just("ask"), SIZES, CULPRITS),
    st.tuples(st.just("ask"), SIZES, CULPRITS),
    st.tuples(st.just("take"), st.integers(1, 3)),
    st.tuples(st.just("take"), st.integers(1, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("pass_time"), st.integers(1, 15)),
    st.tuples(st.sampled_from(["give_up", "replace", "lose_hope", "abort"])),
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
        world.take(1)
        world.end(0)
        world.pass_time(4)
        world.check()
    assert world.queue.idle
    for pending in world.requests:
        assert pending.cancelled or answered(pending) == len(pending.encodings)
