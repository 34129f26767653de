"""Permits by themselves: all or none, those that wait, and neither kind of request starves the other."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from serving import run

from text_embeddings_inference.errors import OverloadedError
from text_embeddings_inference.inference.admission import Permit, Permits


def test_permits_all_or_none() -> None:
    permits = Permits(3)
    with permits.take(2):
        with pytest.raises(OverloadedError, match=r"^Model is overloaded$"), permits.take(2):
            pytest.fail("there was only one")
        with permits.take(1):
            assert permits.free == 0
        assert permits.free == 1
    assert permits.free == 3


def test_permits_come_back_after_an_error() -> None:
    permits = Permits(3)
    with pytest.raises(KeyError), permits.take(3):
        raise KeyError
    assert permits.free == 3


async def in_line(permits: Permits, count: int) -> asyncio.Task[Permit]:
    waiting = asyncio.create_task(permits.wait(count))
    await asyncio.sleep(0)
    return waiting


def test_those_that_wait_leave_half_to_single_requests() -> None:
    async def test() -> None:
        permits = Permits(4)
        waiting = [await in_line(permits, 1) for _ in range(10)]
        assert [task.done() for task in waiting] == [True, True, *[False] * 8]
        for served in range(2, 10):  # one stream item after another ends, and single requests come all the while
            with permits.take(2):
                pass
            with await waiting[served - 2]:
                pass
            assert (await waiting[served]) is not None
        with pytest.raises(OverloadedError):
            permits.take(4)

    run(test())


def test_single_requests_do_not_starve_one_that_waits_for_several() -> None:
    async def test() -> None:
        permits = Permits(4)
        singles = [permits.take(1) for _ in range(4)]
        waiting = await in_line(permits, 2)
        for single in singles[:2]:
            assert not waiting.done()
            with single:
                pass
            with pytest.raises(OverloadedError):
                permits.take(1)  # what came back is kept for the one in line
        with await waiting:
            assert permits.free == 0
        assert permits.free == 2

    run(test())


def test_more_than_the_share_is_the_share() -> None:
    async def test() -> None:
        permits = Permits(5)
        with await permits.wait(99):
            assert permits.free == 2
        assert permits.free == 5
        with await Permits(1).wait(1):
            pass

    run(test())


def test_who_leaves_the_line_gives_back_what_was_collected() -> None:
    async def test() -> None:
        permits = Permits(4)
        held = permits.take(3)
        first, second = await in_line(permits, 2), await in_line(permits, 1)
        assert permits.free == 0
        first.cancel()
        await asyncio.wait([first, second])
        assert not second.cancelled(), "the permit went to the next in line"
        with held, second.result():
            pass
        third = await in_line(permits, 1)
        third.cancel()  # after it was granted
        await asyncio.sleep(0)
        with third.result():
            assert permits.free == 3
        assert permits.free == 4

    run(test())


class Line(RuleBasedStateMachine):
    """Any order of taking, waiting, giving back and leaving: nothing is lost, and neither kind starves the other."""

    @initialize(count=st.integers(1, 7))
    def begin(self, count: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.count = count
        self.share = (count + 1) // 2
        self.permits = Permits(count)
        self.held: list[tuple[int, Permit]] = []
        self.line: list[tuple[int, asyncio.Task[Permit]]] = []
        self.waited: list[tuple[int, Permit]] = []

    def settle(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))
        done = [(count, task) for count, task in self.line if task.done()]
        assert done == self.line[: len(done)], "in the order of asking"
        self.line = self.line[len(done) :]
        self.waited += [(count, task.result()) for count, task in done]

    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        free = self.permits.free
        try:
            self.held.append((count, self.permits.take(count)))
        except OverloadedError:
            assert free < count

    @rule(count=st.integers(1, 4))
    def wait(self, count: int) -> None:
        self.line.append((min(count, self.share), self.loop.create_task(self.permits.wait(count))))
        self.settle()

    @rule(which=st.integers(0, 9), waited=st.booleans())
    def give_back(self, which: int, waited: bool) -> None:
        holders = self.waited if waited else self.held
        if holders:
            with holders.pop(which % len(holders))[1]:
                pass
            self.settle()

    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        if self.line:
            self.line.pop(which % len(self.line))[1].cancel()
            self.settle()

    @invariant()
    def no_kind_starves(self) -> None:
        held, waited = (sum(count for count, _ in holders) for holders in (self.held, self.waited))
        assert waited <= self.share
        assert self.permits.free >= self.count - self.share - held, "the other half is for single requests"
        if self.line:
            assert self.permits.free == 0 or waited + self.line[0][0] > self.share, "the first in line has what is free"
        else:
            assert self.permits.free == self.count - held - waited, "nothing is lost"

    def teardown(self) -> None:
        for _, task in self.line:
            task.cancel()
        self.settle_cancelled()
        for _, permit in (*self.held, *self.waited):
            with permit:
                pass
        assert self.permits.free == self.count
        self.loop.close()

    def settle_cancelled(self) -> None:
        tasks = [task for _, task in self.line]
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


TestLine = Line.TestCase
TestLine.settings = settings(deadline=None, derandomize=True, max_examples=60)
