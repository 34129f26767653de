"""Counters, gauges and histograms, and how they are written in the Prometheus text format.

Our own few lines and not prometheus-client's: its text format can't be brought to the one that is copied here (`_total`
added to names, `le` with exponents, series before their first use), and an observation costs it 2 to 3 times as much.
None of them is safe to use from several threads: `Metrics` holds the lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import accumulate, repeat
from typing import ClassVar

SECONDS = tuple(accumulate(repeat(1.5, 35), lambda bound, factor: bound * factor, initial=1e-5))[1:]
"""Bounds of the durations: `1e-5 * 1.5^k`, by repeated multiplication, so that the texts agree to the last digit."""


def powers_of_two(limit: int) -> tuple[int, ...]:
    """1, 2, 4, ... not above `limit`."""
    return tuple(1 << k for k in range(limit.bit_length()))


class Instrument:
    """What is measured under one name."""

    kind: ClassVar[str]

    def __init__(self, name: str, unit: str, about: str, *labels: str) -> None:
        """about: what it means, for docs/metrics.md; labels: their names."""
        self.name = name
        self.unit = unit
        self.about = about
        self.labels = labels

    def lines(self) -> Iterator[str]:
        """Its samples; none before its first use."""
        raise NotImplementedError


class Gauge(Instrument):
    """The last number that was set, for each combination of values of its labels."""

    kind = "gauge"

    def __init__(self, name: str, unit: str, about: str, *labels: str) -> None:
        super().__init__(name, unit, about, *labels)
        self._numbers: dict[tuple[str, ...], float] = {}

    @property
    def is_set(self) -> bool:
        return bool(self._numbers)

    def set(self, number: float, *values: str) -> None:
        self._numbers[values] = number

    def lines(self) -> Iterator[str]:
        for values, number in self._numbers.items():
            yield f"{self.name}{_braced(self.labels, values)} {plain(number)}"


class Counter(Gauge):
    """A sum, for each combination of values of its labels; `set` is for one that is kept elsewhere."""

    kind = "counter"

    def add(self, amount: float = 1, *values: str) -> None:
        self._numbers[values] = self._numbers.get(values, 0) + amount


class Histogram(Instrument):
    """How many observations were at most each bound, and their sum."""

    kind = "histogram"

    def __init__(self, name: str, unit: str, about: str, bounds: Sequence[float]) -> None:
        super().__init__(name, unit, about)
        self._bounds = bounds
        self._starts = [f'{name}_bucket{{le="{bound}"}} ' for bound in [*map(plain, bounds), "+Inf"]]
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self) -> Iterator[str]:
        totals = list(accumulate(self._counts))
        if totals[-1]:
            for start, total in zip(self._starts, totals, strict=True):
                yield f"{start}{total}"
            yield f"{self.name}_sum {plain(self._sum)}"
            yield f"{self.name}_count {totals[-1]}"


def plain(number: float) -> str:
    """The shortest decimal that gives `number` back, never with an exponent, whole numbers without a fraction."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _braced(names: Sequence[str], values: Sequence[str]) -> str:
    """`{name="value"}`, or nothing where there are no labels."""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
