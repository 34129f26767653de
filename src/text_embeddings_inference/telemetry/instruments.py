"""Counters, gauges and histograms, and how they are written in the Prometheus text format.

Our own few lines and not prometheus-client's: its text format can't be brought to the one that is copied here (`_total`
added to names, `le` with exponents, series before their first use), and an observation costs it 2 to 3 times as much.
None of them is safe to use from several threads: `Metrics` holds the lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate, repeat
from typing import ClassVar

SECONDS = tuple(accumulate(repeat(1.5, 35), lambda bound, factor: bound * factor, initial=1e-5))[1:]
"""Bounds of the durations: `1e-5 * 1.5^k`, by repeated multiplication, so that the texts agree to the last digit."""


def powers_of_two(limit: int) -> tuple[int, ...]:
    """1, 2, 4, ... not above `limit`."""
    return tuple(1 << k for k in range(limit.bit_length()))


class Instrument:
    """What is measured under one name; about: what it means, for docs/metrics.md; labels: the names of its labels."""

    kind: ClassVar[str]

    def __init__(self, name: str, unit: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.unit = unit
        self.about = about
        self.labels = labels

    def lines(self) -> Iterator[str]:
        """Its samples; none before its first use."""
        raise NotImplementedError


class Counter(Instrument):
    """A sum per value of its label, or one sum if it has none."""

    kind = "counter"

    def __init__(self, name: str, unit: str, about: str, label: str = "") -> None:
        super().__init__(name, unit, about, (label,) if label else ())
        self._values: dict[str, float] = {}

    def add(self, amount: float = 1, value: str = "") -> None:
        self._values[value] = self._values.get(value, 0) + amount

    def set(self, total: float) -> None:
        """For a sum that is kept elsewhere."""
        self._values[""] = total

    def lines(self) -> Iterator[str]:
        for value, total in self._values.items():
            labels = dict.fromkeys(self.labels, value)
            yield f"{self.name}{_braced(labels)} {plain(total)}"


class Gauge(Instrument):
    """The last value that was set, and the labels it was set with."""

    kind = "gauge"

    def __init__(self, name: str, unit: str, about: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, unit, about, labels)
        self._values: tuple[str, ...] = ()
        self._value: float | None = None

    @property
    def is_set(self) -> bool:
        return self._value is not None

    def set(self, value: float, *labels: str) -> None:
        self._value, self._values = value, labels

    def lines(self) -> Iterator[str]:
        if self._value is not None:
            yield f"{self.name}{_braced(dict(zip(self.labels, self._values, strict=True)))} {plain(self._value)}"


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


def _braced(labels: Mapping[str, str]) -> str:
    """`{name="value"}`, or nothing where there are no labels."""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
