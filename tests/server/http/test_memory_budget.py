"""Bodies, and answers that are not read, that would fill the memory together."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import FakeEngine, fake_model
from tests.server.client import Client
from text_embeddings_inference.errors import OverloadedError
from text_embeddings_inference.server.http.memory_budget import MemoryBudget, Share, UnsentAnswers


def test_a_share_is_given_back() -> None:
    budget = MemoryBudget(10)
    with Share(budget) as first:
        first.take(4)
        first.take(4)
        with Share(budget) as second, pytest.raises(OverloadedError):
            second.take(3)
        assert budget.used == 8
    assert budget.used == 0


def test_a_body_alone_always_has_budget() -> None:
    budget = MemoryBudget(10)
    with Share(budget) as share:
        share.take(11)
    with Share(MemoryBudget(None)) as share:
        share.take(1 << 40)


def test_what_does_not_fit_beside_the_others_is_refused() -> None:
    engine = FakeEngine()
    body = b'{"inputs": "1"}'
    with Client(fake_model(engine), max_queued_bytes=len(body)) as client:

        async def scenario() -> None:
            engine.hold()
            running = asyncio.create_task(client.answer("POST", "/embed", [body]))
            await asyncio.to_thread(engine.wait_for, 1)
            second = await client.answer("POST", "/embed", [body])
            assert (second.status, second.json["error_type"]) == (429, "Overloaded")
            engine.let()
            assert (await running).status == 200

        client.run(scenario())
        assert client.post("/embed", {"inputs": "1"}).status == 200


class Slow:
    """A connection whose client reads nothing."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_the_slowest_reader_makes_way() -> None:
    unsent = UnsentAnswers(100)
    first, second, third = Slow(), Slow(), Slow()
    unsent.hold(first, 60)
    unsent.hold(second, 40)
    unsent.hold(first, 60)  # it has read, and stopped again
    unsent.hold(third, 30)
    assert (first.aborted, second.aborted, third.aborted) == (False, True, False)
    unsent.release(second)
    unsent.release(first)
    assert unsent.used == 30


def test_an_answer_alone_may_be_as_long_as_it_is() -> None:
    unsent, reader = UnsentAnswers(100), Slow()
    unsent.hold(reader, 1000)
    assert not reader.aborted
    unlimited = UnsentAnswers(None)
    unlimited.hold(reader, 1000)
    unlimited.hold(Slow(), 1 << 40)
    assert not reader.aborted
