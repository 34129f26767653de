"""Work on the event loop that leaves other requests their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ..queueing.jobs import Row

T = TypeVar("T")

ROW_OVERHEAD = 1 << 12
"""What a row costs beside its numbers, in numbers: calls into NumPy take some microseconds."""
NUMBERS_A_TURN = 1 << 19
"""Numbers computed between two turns of the loop: about 0.6 ms for 128 rows."""


class Budget:
    """What a coroutine may do before it lets the event loop have a turn."""

    def __init__(self, amount: int) -> None:
        """amount: of work between two turns, in whatever unit it is spent in."""
        self._amount = amount
        self._left = amount

    async def spend(self, amount: int) -> None:
        """So much was done: the loop has its turn if the budget is used up, and the budget is full again."""
        self._left -= amount
        if self._left <= 0:
            self._left = self._amount
            await asyncio.sleep(0)


async def each(rows: Sequence[Row], compute: Callable[[Row], T]) -> list[T]:
    """`compute` of every row; other requests have their turn in between."""
    budget = Budget(NUMBERS_A_TURN)
    results = []
    for row in rows:
        results.append(compute(row))
        await budget.spend(ROW_OVERHEAD + row.values.size)
    return results


def future_of_threads() -> tuple[asyncio.Future[None], Callable[[], None]]:
    """A future, and what any thread may call to have it done."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def finish() -> None:
        if not future.done():
            future.set_result(None)

    def call() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish)

    return future, call
