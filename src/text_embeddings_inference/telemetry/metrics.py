"""The metrics of text-embeddings-inference, and a few of our own (`tei_...`), in the Prometheus text format.

All times are seconds. A metric appears after its first use. Counters and histograms are our own few lines and not
prometheus-client's: its text format can't be brought to the one that is copied here (`_total` added to names, `le`
with exponents, series before their first use), and an observation costs it 2 to 3 times as much.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import accumulate, repeat
from typing import Literal, TypeAlias

from ..types import Timings

Method: TypeAlias = Literal["single", "batch"]

SECONDS = tuple(accumulate(repeat(1.5, 35), lambda bound, factor: bound * factor, initial=1e-5))[1:]
"""Bounds of the durations: `1e-5 * 1.5^k`, by repeated multiplication, so that the texts agree to the last digit."""


def powers_of_two(limit: int) -> tuple[int, ...]:
    """1, 2, 4, ... not above `limit`."""
    return tuple(1 << k for k in range(limit.bit_length()))


class Counter:
    """A sum per value of `label`, or one sum if there is no label."""

    kind = "counter"

    def __init__(self, name: str, label: str = "") -> None:
        self.name = name
        self._label = label
        self._values: dict[str, int] = {}

    def add(self, amount: int = 1, value: str = "") -> None:
        self._values[value] = self._values.get(value, 0) + amount

    def lines(self) -> Iterator[str]:
        for value, total in self._values.items():
            labels = f'{{{self._label}="{value}"}}' if self._label else ""
            yield f"{self.name}{labels} {total}"


class Gauge:
    """The last value that was set."""

    kind = "gauge"

    def __init__(self, name: str) -> None:
        self.name = name
        self._value: float | None = None

    def set(self, value: float) -> None:
        self._value = value

    def lines(self) -> Iterator[str]:
        if self._value is not None:
            yield f"{self.name} {plain(self._value)}"


class Histogram:
    """How many observations were at most each bound, and their sum."""

    kind = "histogram"

    def __init__(self, name: str, bounds: Sequence[float]) -> None:
        self.name = name
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self) -> Iterator[str]:
        totals = list(accumulate(self._counts))
        if totals[-1]:
            for bound, total in zip([*map(plain, self._bounds), "+Inf"], totals, strict=True):
                yield f'{self.name}_bucket{{le="{bound}"}} {total}'
            yield f"{self.name}_sum {plain(self._sum)}"
            yield f"{self.name}_count {totals[-1]}"


class _Durations:
    """The histograms of a request's or an input's time and its three parts."""

    def __init__(self, prefix: str) -> None:
        self.total = Histogram(f"{prefix}_duration", SECONDS)
        self.tokenization = Histogram(f"{prefix}_tokenization_duration", SECONDS)
        self.queue = Histogram(f"{prefix}_queue_duration", SECONDS)
        self.inference = Histogram(f"{prefix}_inference_duration", SECONDS)
        self.all = (self.total, self.tokenization, self.queue, self.inference)

    def observe(self, total: float, timings: Timings, times: int = 1) -> None:
        self.total.observe(total, times)
        self.tokenization.observe(timings.tokenization, times)
        self.queue.observe(timings.queue, times)
        self.inference.observe(timings.inference, times)


class Metrics:
    """The metrics of one server. Every method may be called from any thread.

    max_input_length: tokens; where the bounds of `te_request_input_length` end.
    """

    def __init__(self, max_input_length: int) -> None:
        self._lock = threading.Lock()
        self._request_count = Counter("te_request_count", "method")
        self._request_success = Counter("te_request_success", "method")
        self._request_failure = Counter("te_request_failure", "err")
        self._request = _Durations("te_request")
        self._input_length = Histogram("te_request_input_length", powers_of_two(min(max_input_length, 524288)))
        self._embed_count = Counter("te_embed_count")
        self._embed_success = Counter("te_embed_success")
        self._embed = _Durations("te_embed")
        self._predict_count = Counter("te_predict_count")
        self._predict_success = Counter("te_predict_success")
        self._predict = _Durations("te_predict")
        self._queue_size = Gauge("te_queue_size")
        self._batch_size = Histogram("te_batch_next_size", powers_of_two(4096))
        self._batch_tokens = Histogram("te_batch_next_tokens", powers_of_two(1048576))
        self._tokens = Counter("tei_batch_tokens_total")
        self._computed_tokens = Counter("tei_batch_computed_tokens_total")
        self._fidelity = Gauge("tei_fidelity")
        self._all: tuple[Counter | Gauge | Histogram, ...] = (
            *(self._request_count, self._request_success, self._request_failure, *self._request.all),
            self._input_length,
            *(self._embed_count, self._embed_success, *self._embed.all),
            *(self._predict_count, self._predict_success, *self._predict.all),
            *(self._queue_size, self._batch_size, self._batch_tokens),
            *(self._tokens, self._computed_tokens, self._fidelity),
        )

    def request_started(self, method: Method) -> None:
        with self._lock:
            self._request_count.add(value=method)

    def request_succeeded(self, method: Method | None, total: float, timings: Timings) -> None:
        """method: None for an item of a gRPC stream, which is timed and not counted."""
        with self._lock:
            if method is not None:
                self._request_success.add(value=method)
            self._request.observe(total, timings)

    def request_failed(self, label: str | None, times: int = 1) -> None:
        """label: of the error, see `errors.PRESENTATION`; None is not counted."""
        if label is not None:
            with self._lock:
                self._request_failure.add(times, label)

    def input_lengths(self, tokens: Iterable[int]) -> None:
        """Inputs passed all checks: the tokens of each after truncation, special ones included."""
        with self._lock:
            for length in tokens:
                self._input_length.observe(length)

    def embed_started(self, inputs: int) -> None:
        with self._lock:
            self._embed_count.add(inputs)

    def embed_succeeded(self, total: float, timings: Timings, inputs: int) -> None:
        """`inputs` inputs of a request were answered, each in the same times."""
        with self._lock:
            self._embed_success.add(inputs)
            self._embed.observe(total, timings, inputs)

    def predict_started(self, inputs: int) -> None:
        with self._lock:
            self._predict_count.add(inputs)

    def predict_succeeded(self, total: float, timings: Timings, inputs: int) -> None:
        """As `embed_succeeded`, for classifications and rerankings."""
        with self._lock:
            self._predict_success.add(inputs)
            self._predict.observe(total, timings, inputs)

    def queue_size(self, inputs: int) -> None:
        with self._lock:
            self._queue_size.set(inputs)

    def batch_formed(self, inputs: int, tokens: int) -> None:
        """A batch left the queue; tokens: without padding."""
        with self._lock:
            self._batch_size.observe(inputs)
            self._batch_tokens.observe(tokens)

    def batch_computed(self, tokens: int, computed_tokens: int) -> None:
        """The engine ran tokens; with padding, it computed more. One minus their quotient is the padding waste."""
        with self._lock:
            self._tokens.add(tokens)
            self._computed_tokens.add(computed_tokens)

    def fidelity(self, cosine: float) -> None:
        """Smallest cosine between the vectors of the chosen dtype and of float32, on built-in texts."""
        with self._lock:
            self._fidelity.set(cosine)

    def render(self) -> bytes:
        """What `GET /metrics` answers: for each used metric a `# TYPE` line, its samples and an empty line."""
        with self._lock:
            used = [(metric, list(metric.lines())) for metric in self._all]
        return "".join(
            "\n".join([f"# TYPE {metric.name} {metric.kind}", *lines, "", ""]) for metric, lines in used if lines
        ).encode()


def plain(number: float) -> str:
    """The shortest decimal that gives `number` back, never with an exponent, whole numbers without a fraction."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
