"""The search for the size of batch, on a machine whose rates are made up."""

from __future__ import annotations

import pytest

from text_embeddings_inference.engines.measure import Stopwatch, best_batch, fastest

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
