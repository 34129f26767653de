"""The search for the size of batch, on a machine whose rates are made up."""

from __future__ import annotations

import time

import pytest

from fakes import FakeEngine
from text_embeddings_inference.engines.base import Capacity
from text_embeddings_inference.engines.measure import Stopwatch, best_batch, fastest, measure
from text_embeddings_inference.types import Batch

SIZES = (256, 512, 1024, 2048)
DEFAULT = 700


class Machine:
    """Takes the time that its rate for a size says, in tokens per second; a first run of each takes twice as long."""

    def __init__(self, rates: dict[int, float]) -> None:
        self._rates = rates
        self.now = 0.0
        self.ran: list[int] = []

    def run(self, size: int) -> float:
        seconds = size / self._rates[size] * (1 if size in self.ran else 2)
        self.ran.append(size)
        self.now += seconds
        return seconds

    def find(self, seconds: float) -> int:
        return best_batch(SIZES, self.run, Stopwatch(seconds, lambda: self.now), DEFAULT)


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ((1000, 1000, 1000, 1000), 256),
        ((1000, 1010, 1020, 5000), 256),  # nothing gained by doubling: the search is over
        ((1000, 2000, 2010, 9999), 512),
        ((1000, 2000, 3000, 2000), 1024),
        ((1000, 1040, 1060, 9999), 512),  # 1040 is within 3 % of 1060
        ((1000, 2000, 3000, 4000), 2048),
        ((1000, 500, 9999, 9999), 256),
    ],
)
def test_the_smallest_that_is_nearly_the_fastest(rates: tuple[float, ...], found: int) -> None:
    assert Machine(dict(zip(SIZES, rates, strict=True))).find(seconds=60) == found


def test_the_time_is_kept() -> None:
    """256 tokens take 0.5 s (first run), then 0.25 s twice; 512 take as long again, and there is no time for 1024."""
    machine = Machine({256: 1024, 512: 2048, 1024: 4096, 2048: 8192})
    assert machine.find(seconds=2.3) == DEFAULT
    assert machine.now <= 2.3
    assert set(machine.ran) == {256, 512}


def test_no_time_at_all() -> None:
    machine = Machine({256: 100})
    assert machine.find(seconds=1) == DEFAULT
    assert machine.ran == [256]


def test_nothing_to_try() -> None:
    assert best_batch((), Machine({}).run, Stopwatch(1), DEFAULT) == DEFAULT


def test_a_larger_batch_found_in_time_is_kept() -> None:
    machine = Machine({256: 1024, 512: 2048, 1024: 4096, 2048: 8192})
    machine.ran.append(1024)  # its first run takes no longer than the others
    assert machine.find(seconds=3) == 1024
    assert 2048 not in machine.ran


def test_fastest_leaves_out_the_first_run() -> None:
    times = iter([9.0, 3.0, 2.0])
    assert fastest(lambda: next(times), Stopwatch(100, lambda: 0.0)) == 2.0
    assert fastest(lambda: 51.0, Stopwatch(100, lambda: 0.0)) is None


# --- an engine whose batches take as long as is said ------------------------------------------------------------------

CAPACITY = Capacity(streams=2, batch_tokens=100)


def engine(seconds_alone: float = 0, seconds_side_by_side: float = 0) -> FakeEngine:
    made = FakeEngine(streams=2)
    made.trials, made.longest = (8, 16), 4

    def take_time(batch: Batch) -> None:
        time.sleep(seconds_alone if made.batches[-1].cores == made.cores else seconds_side_by_side)

    made.on_run = take_time
    return made


def test_what_is_run() -> None:
    measured = engine(seconds_alone=0.002)
    found = measure(measured, CAPACITY, ["batch_tokens"], 60)
    assert found.batch_tokens in (8, 16)
    assert found.streams == 2, "nobody asked"
    assert {len(ran.inputs) for ran in measured.batches} == {2, 4}
    assert {len(ids) for ran in measured.batches for ids in ran.inputs} == {4}
    assert {ran.cores for ran in measured.batches} == {measured.cores}


@pytest.mark.parametrize(("alone", "side_by_side", "streams"), [(0.001, 0.05, 1), (0.05, 0.001, 2)])
def test_streams_that_gain_nothing_are_given_up(alone: float, side_by_side: float, streams: int) -> None:
    measured = engine(alone, side_by_side)
    prepared: list[int] = []
    measured.prepare = prepared.append  # type: ignore[method-assign]
    assert measure(measured, CAPACITY, ["streams"], 60) == Capacity(streams, 100)
    assert prepared == ([2, 1] if streams == 1 else [2])
    assert {ran.cores for ran in measured.batches} == {8, 4}


def test_one_stream_is_not_compared_with_itself() -> None:
    assert measure(measured := engine(), Capacity(1, 100), ["streams"], 60) == Capacity(1, 100)
    assert not measured.batches


@pytest.mark.parametrize("quantity", ["batch_tokens", "streams"])
def test_other_batches_end_a_measurement(quantity: str) -> None:
    with pytest.raises(InterruptedError):
        measure(engine(), CAPACITY, [quantity], 60, undisturbed=lambda: False)  # type: ignore[list-item]


def test_a_size_that_is_too_large_ends_the_measurement() -> None:
    def too_large(batch: Batch) -> None:
        raise MemoryError

    measured = engine()
    measured.on_run = too_large
    assert measure(measured, CAPACITY, ["batch_tokens"], 60) == CAPACITY
