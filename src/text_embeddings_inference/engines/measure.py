"""What is measured of an engine before its load is known: the size of batches, and how many run side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from ..types import Encoding
from .base import Capacity, Engine, share_of_cores

Quantity: TypeAlias = Literal["streams", "batch_tokens"]
"""A field of `Capacity`."""

NEARLY_BEST = 0.97
"""A smaller batch is preferred if it reaches this share of the best rate: whoever waits for it waits less."""
TRIAL_LENGTH = 32
"""Tokens of the texts that are measured."""
TRIAL_REPETITIONS = 2
"""Runs of which the fastest counts, after one in which the engine may prepare for a shape."""


def measure(
    engine: Engine,
    capacity: Capacity,
    wanted: Collection[Quantity],
    seconds: float,
    undisturbed: Callable[[], bool] = lambda: True,
) -> Capacity:
    """The capacity with the `wanted` quantities as they are found by running batches of made-up texts.

    seconds: at most, for each quantity; the time to compile what several streams need, which load would ask for anyway,
    is not counted. undisturbed: whether no other batches have run since. Raises InterruptedError where some have.
    """
    trial = _Trial(engine, undisturbed)
    if "batch_tokens" in wanted:
        best = best_batch(engine.trials, trial.run, Stopwatch(seconds), capacity.batch_tokens)
        capacity = replace(capacity, batch_tokens=best)
    if "streams" in wanted and capacity.streams > 1 and not _several_gain(trial, capacity, seconds):
        engine.prepare(1)
        capacity = replace(capacity, streams=1)
    return capacity


def _several_gain(trial: _Trial, capacity: Capacity, seconds: float) -> bool:
    """Whether small batches run faster side by side than one after the other; also where there is no time to tell."""
    engine, streams = trial.engine, capacity.streams
    engine.prepare(streams)
    watch, size = Stopwatch(seconds), min(engine.trials, default=capacity.batch_tokens)
    one = fastest(lambda: trial.run(size, batches=streams), watch)
    several = fastest(lambda: trial.run(size, batches=streams, streams=streams), watch)
    return not (one and several and one * NEARLY_BEST <= several)


class _Trial:
    """An engine under the stopwatch."""

    def __init__(self, engine: Engine, undisturbed: Callable[[], bool]) -> None:
        self.engine = engine
        self._undisturbed = undisturbed

    def run(self, size: int, *, batches: int = 1, streams: int = 1) -> float:
        """Seconds for some batches of `size` tokens; infinite if they are too large for the memory.

        Raises InterruptedError if other batches ran meanwhile.
        """
        engine, length = self.engine, min(TRIAL_LENGTH, self.engine.longest)
        batch = engine.arrange([Encoding(np.ones(length, np.int32), None, 0)] * max(1, size // length))
        cores = share_of_cores(engine, streams)
        with ThreadPoolExecutor(streams) as pool:
            start = time.perf_counter()
            try:
                list(pool.map(lambda _: engine.run(batch, cores=cores), range(batches)))
            except MemoryError:
                return math.inf
            seconds = time.perf_counter() - start
        if not self._undisturbed():
            raise InterruptedError
        return seconds


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
    if not watch.allows(first * TRIAL_REPETITIONS):
        return None
    return min(run() for _ in range(TRIAL_REPETITIONS))


def best_batch(sizes: Iterable[int], run: Callable[[int], float], watch: Stopwatch, default: int) -> int:
    """The smallest batch that is nearly as fast as the fastest, in tokens.

    sizes: to be tried, ascending; run: runs a batch of that size and gives the seconds it took. The first size that
    gains nothing ends the search. So does the end of the time: then a larger batch might have been faster, and the
    answer is not below `default`, which does well on the machines it was chosen on.
    """
    rates: dict[int, float] = {}

    def smallest() -> int:
        return min(size for size, rate in rates.items() if rate >= NEARLY_BEST * max(rates.values()))

    for size in sizes:
        best = max(rates.values(), default=0.0)
        seconds = fastest(lambda size=size: run(size), watch) if not best or watch.allows(size / best) else None  # type: ignore[misc]
        if seconds is None:
            return max(default, smallest()) if rates else default
        rates[size] = size / seconds
        if best and rates[size] * NEARLY_BEST <= best:
            break
    return smallest() if rates else default
