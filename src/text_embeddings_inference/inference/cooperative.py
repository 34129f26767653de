"""Work on many rows that leaves the event loop its turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..queueing.jobs import Row

T = TypeVar("T")

ROW = 1 << 12
"""What a row costs beside its numbers, in numbers: calls into NumPy take some microseconds."""
TURN = 1 << 19
"""Numbers between two turns of the loop: about 0.6 ms for 128 rows."""


async def each(rows: Sequence[Row], compute: Callable[[Row], T]) -> list[T]:
    """`compute` of every row; other requests have their turn in between."""
    results = []
    cost = 0
    for row in rows:
        if cost > TURN:
            await asyncio.sleep(0)
            cost = 0
        results.append(compute(row))
        cost += ROW + row.values.size
    return results
