"""The scheduler as the pure state machine it is: example by example, then any order of adding, dropping and taking."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text_embeddings_inference.queueing.scheduler import SHARE, SPARE_PADDING, Cost, Scheduler


@dataclass(eq=False)
class Item:
    """An entry, told apart from others of its length by identity."""

    length: int
    ahead: int = 0
    cancelled: bool = False


def padded(longest: int, count: int, tokens: int) -> int:
    return longest * count


def packed(longest: int, count: int, tokens: int) -> int:
    return tokens


class Queue(Scheduler[Item]):
    """A queue in front of one engine."""

    def __init__(self, cost: Cost, *, max_tokens: int, max_entries: int | None = None) -> None:
        super().__init__(max_entries=max_entries)
        self._engine = cost, max_tokens

    def take(self, streams: int = 1) -> list[Item]:
        return self.next_batch(*self._engine, streams)


def scheduler(*lengths: int, max_tokens: int = 1000, max_entries: int | None = None) -> Queue:
    queue = Queue(padded, max_tokens=max_tokens, max_entries=max_entries)
    for length in lengths:
        queue.add(Item(length))
    return queue


def lengths(batch: list[Item]) -> list[int]:
    return [item.length for item in batch]


def drain(queue: Queue, streams: int = 1) -> list[list[int]]:
    """The lengths in every batch, until nothing waits; one stream less is free after each."""
    batches: list[list[int]] = []
    while batch := queue.take(max(1, streams - len(batches))):
        batches.append(lengths(batch))
    return batches


def test_an_empty_queue_gives_an_empty_batch() -> None:
    queue = scheduler()
    assert queue.take() == []
    assert queue.drop_cancelled() == []
    assert (len(queue), queue.waiting_tokens) == (0, 0)


def test_what_fits_goes_at_once_by_length() -> None:
    assert drain(scheduler(9, 7, 8)) == [[7, 8, 9]]


def test_the_batch_is_the_oldest_and_those_of_like_length() -> None:
    queue = scheduler(100, 10, 101, 11, 99, 12)
    assert lengths(queue.take()) == [99, 100, 101]
    assert lengths(queue.take()) == [10, 11, 12]


def test_equal_lengths_leave_in_the_order_they_came() -> None:
    items = [Item(5) for _ in range(6)]
    queue = Queue(padded, max_tokens=10)
    for item in items:
        queue.add(item)
    taken = [item for _ in range(3) for item in queue.take()]
    assert taken == items


def test_a_constant_stream_of_others_does_not_starve_an_outlier() -> None:
    queue = scheduler(*[10] * 50, max_tokens=100)
    outlier = Item(400)
    queue.add(outlier)
    before = 0
    while outlier not in (batch := queue.take()):
        before += 1
        for _ in batch:  # as many come as go
            queue.add(Item(10))
    assert before == 5, "it waits for the five batches of those that came before it, and for no other"


@pytest.mark.parametrize(
    ("cost", "expected"), [(padded, [[10, 10], [8, 9]]), (packed, [[10, 8, 9], [10]])], ids=["padded", "packed"]
)
def test_the_budget_is_in_computed_tokens(cost: Cost, expected: list[list[int]]) -> None:
    queue = Queue(cost, max_tokens=27)
    for length in (10, 8, 9, 10):
        queue.add(Item(length))
    assert drain(queue) == expected


def test_without_padding_a_batch_is_filled_in_due_order() -> None:
    queue = Queue(packed, max_tokens=200)
    for length in (64, 8, 65, 8, 60, 9, 300):
        queue.add(Item(length))
    assert drain(queue) == [[64, 8, 65, 8], [60, 9], [300]]


def test_engines_of_different_costs_take_from_one_queue() -> None:
    queue = scheduler(10, 30, 11, 31, 12)
    assert lengths(queue.next_batch(packed, 52)) == [10, 30, 11]
    assert lengths(queue.next_batch(padded, 100)) == [12, 31]


def test_clearing_takes_out_all() -> None:
    queue = scheduler(9, 7, 8)
    assert lengths(queue.clear()) == [7, 8, 9]
    assert (len(queue), queue.waiting_tokens, queue.take()) == (0, 0, [])


def test_an_entry_above_the_budget_runs_alone() -> None:
    assert drain(scheduler(51, 51, 50, max_tokens=50)) == [[51], [51], [50]]


def test_at_most_so_many_entries() -> None:
    assert [len(batch) for batch in drain(scheduler(*[3] * 7, max_entries=3))] == [3, 3, 1]


@pytest.mark.parametrize("no_limit", [None, 0])
def test_no_limit_of_entries(no_limit: int | None) -> None:
    assert drain(scheduler(*[1] * 99, max_entries=no_limit)) == [[1] * 99]


def test_a_few_tokens_of_padding_are_allowed() -> None:
    assert drain(scheduler(1, 1 + SPARE_PADDING)) == [[1, 1 + SPARE_PADDING]]
    assert drain(scheduler(1, 2 + SPARE_PADDING)) == [[1], [2 + SPARE_PADDING]]


def large_request(count: int, length: int) -> list[Item]:
    return [Item(length, ahead) for ahead in range(0, count * length, length)]


def test_a_text_alone_passes_a_large_request() -> None:
    queue = Queue(padded, max_tokens=100)
    for item in large_request(99, 50):
        queue.add(item)
    assert lengths(queue.take()) == [50, 50]
    queue.add(alone := Item(10))
    assert queue.take() == [alone]


def test_of_a_large_request_one_part_in_so_many_is_due() -> None:
    queue = Queue(padded, max_tokens=100)
    large = large_request(99, 100)
    for item in large:
        queue.add(item)
    taken: list[Item] = []
    for _ in range(4 * SHARE):
        queue.add(Item(100))  # others alone would keep the engine busy
        taken += queue.take()
    assert [item for item in taken if item in large] == large[:4]


def test_requests_of_one_size_take_turns() -> None:
    queue = Queue(padded, max_tokens=10)
    requests = [large_request(3, 10) for _ in range(3)]
    for request in requests:
        for item in request:
            queue.add(item)
    taken = [queue.take()[0] for _ in range(9)]
    assert taken == [item for items in zip(*requests, strict=True) for item in items]


@pytest.mark.parametrize(("streams", "sizes"), [(1, [8]), (2, [4, 4]), (3, [2, 3, 3]), (4, [2, 2, 2, 2]), (8, [1] * 8)])
def test_what_waits_is_shared_out_between_free_streams(streams: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in drain(scheduler(*[10] * 8), streams)] == sizes


def test_more_streams_than_entries() -> None:
    assert drain(scheduler(5), streams=8) == [[5]]


def test_cancelled_entries_are_dropped_and_no_longer_weigh() -> None:
    queue = scheduler(4, 6)
    gone = [Item(5, cancelled=True), Item(7, cancelled=True)]
    for item in gone:
        queue.add(item)
    assert queue.drop_cancelled() == gone
    assert (len(queue), queue.waiting_tokens) == (2, 10)
    assert queue.drop_cancelled() == []
    assert drain(queue) == [[4, 6]]


def test_the_oldest_may_be_dropped() -> None:
    queue = scheduler()
    first, second, third = Item(200, cancelled=True), Item(10), Item(100)
    for item in (first, second, third):
        queue.add(item)
    queue.drop_cancelled()
    assert queue.take() == [second]


ADD = st.tuples(st.just("add"), st.one_of(st.integers(1, 20), st.integers(1, 600)))
ADD_SEVERAL = st.tuples(st.just("add several"), st.integers(2, 20))
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 50))
TAKE = st.tuples(st.just("take"), st.integers(1, 4))
LIMITS = st.sampled_from([None, 0, 1, 3])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.one_of(ADD, ADD, ADD, ADD_SEVERAL, CANCEL, TAKE), max_size=60),
    cost=st.sampled_from([padded, packed]),
    max_tokens=st.sampled_from([1, 64, 512]),
    max_entries=LIMITS,
)
def test_any_order_of_adding_cancelling_and_taking(
    steps: list[tuple[str, int]], cost: Cost, max_tokens: int, max_entries: int | None
) -> None:
    queue = Queue(cost, max_tokens=max_tokens, max_entries=max_entries)
    waiting: list[Item] = []  # what must be in the queue, oldest first
    due: dict[Item, int] = {}
    taken = 0
    for step, number in [
        *steps,
        *[("take", 1)] * sum(number if step == "add several" else 1 for step, number in steps),
    ]:
        if step.startswith("add"):
            for item in [Item(number)] if step == "add" else large_request(number, 30):
                waiting.append(item)
                due[item] = taken + SHARE * item.ahead
                queue.add(item)
        elif step == "cancel":
            for item in waiting[number : number + 2]:
                item.cancelled = True
            dropped = queue.drop_cancelled()
            assert set(dropped) == {item for item in waiting if item.cancelled}
            waiting = [item for item in waiting if not item.cancelled]
        else:
            total = sum(lengths(waiting))
            batch = queue.take(number)
            assert len(set(batch)) == len(batch)
            assert set(batch) <= set(waiting)
            first = min(waiting, key=due.__getitem__, default=None)
            assert first is None or first in batch, "what is due first is in every batch"
            taken += sum(lengths(batch))
            waiting = [item for item in waiting if item not in batch]
            if len(batch) > 1:
                check_limits(batch, cost, max_tokens, max_entries)
                assert sum(lengths(batch)) <= -(-total // number), "more than its share"
            if cost is padded:
                check_window(batch, waiting)
            elif batch:
                assert max(due[item] for item in batch) <= min((due[item] for item in waiting), default=math.inf)
        assert len(queue) == len(waiting)
        assert queue.waiting_tokens == sum(lengths(waiting))
    assert not waiting


def check_limits(batch: list[Item], cost: Cost, max_tokens: int, max_entries: int | None) -> None:
    tokens = sum(lengths(batch))
    computed = cost(max(lengths(batch)), len(batch), tokens)
    assert computed <= max_tokens
    assert computed - tokens <= SPARE_PADDING
    assert len(batch) <= (max_entries or len(batch))


def check_window(batch: list[Item], left: list[Item]) -> None:
    """Nothing of a length in between was left out."""
    between = [item for item in left if batch and min(lengths(batch)) < item.length < max(lengths(batch))]
    assert not between
