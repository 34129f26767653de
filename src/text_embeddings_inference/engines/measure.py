"""What an engine measures about itself before it knows its load: the size of batch beyond which nothing is gained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

ENOUGH = 0.97
"""A smaller batch is preferred if it reaches this share of the best rate: whoever waits for it waits less."""
REPETITIONS = 2
"""Runs of which the fastest counts, after one in which the engine may prepare for a shape."""


class Stopwatch:
    """The time that may be spent on measurements."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def allows(self, seconds: float) -> bool:
        """Whether so much is left."""
        return self._clock() + seconds <= self._end


def fastest(run: Callable[[], float], watch: Stopwatch) -> float | None:
    """The seconds that `run` says it takes at its best; None if there is no time to find out."""
    first = run()
    if not watch.allows(first * REPETITIONS):
        return None
    return min(run() for _ in range(REPETITIONS))


def best_batch(sizes: Iterable[int], run: Callable[[int], float], watch: Stopwatch, default: int) -> int:
    """The smallest batch that is nearly as fast as the fastest, in tokens.

    sizes: to be tried, ascending; run: runs a batch of that size and gives the seconds it took. The first size that
    gains nothing ends the search. So does the end of the time: then a larger batch might have been faster, and the
    answer is not below `default`, which does well on the machines it was chosen on.
    """
    rates: dict[int, float] = {}

    def smallest() -> int:
        return min(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))

    for size in sizes:
        best = max(rates.values(), default=0.0)
        seconds = fastest(lambda size=size: run(size), watch) if not best or watch.allows(size / best) else None  # type: ignore[misc]
        if seconds is None:
            return max(default, smallest()) if rates else default
        rates[size] = size / seconds
        if best and rates[size] * ENOUGH <= best:
            break
    return smallest() if rates else default
