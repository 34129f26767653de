"""Results of many rows are computed in turns with the rest of the event loop."""

from __future__ import annotations

import asyncio

import numpy as np

from text_embeddings_inference.inference.cooperative import NUMBERS_AT_ONCE, ROW_OVERHEAD, Budget, each
from text_embeddings_inference.queueing.jobs import Row
from text_embeddings_inference.types import Encoding


def rows(count: int, width: int) -> list[Row]:
    encoding = Encoding(np.zeros(1, np.int32), None, 1)
    return [Row(encoding, np.full(width, number, np.float32), 0, 0) for number in range(count)]


def turns(given: list[Row]) -> int:
    async def scenario() -> int:
        turns = 0
        working = asyncio.create_task(each(given, lambda row: float(row.values[0])))
        while not working.done():
            turns += 1
            await asyncio.sleep(0)
        assert working.result() == list(map(float, range(len(given))))
        return turns

    return asyncio.run(scenario())


def test_many_small_rows() -> None:
    assert turns(rows(2000, 384)) >= 2000 * (ROW_OVERHEAD + 384) // NUMBERS_AT_ONCE


def test_few_large_rows() -> None:
    assert turns(rows(8, NUMBERS_AT_ONCE + 1)) >= 8


def test_a_usual_request_is_done_at_once() -> None:
    assert turns(rows(32, 1024)) == 1


def test_a_budget_is_spent_before_the_loop_has_its_turn() -> None:
    async def scenario() -> list[int]:
        budget, turns, seen = Budget(10), 0, []

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        watching = asyncio.create_task(others())
        for amount in (4, 5, 1, 9, 30, 9):
            await budget.spend(amount)
            seen.append(turns)
        watching.cancel()
        return seen

    assert asyncio.run(scenario()) == [0, 0, 1, 1, 2, 2]
