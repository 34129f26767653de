"""The metrics of text-embeddings-inference, and a few of our own (`tei_...`), in the Prometheus text format.

All times are seconds. A metric appears after its first use. docs/metrics.md is written from what is said here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from ..types import ModelInfo, Timings
from .instruments import SECONDS, Counter, Gauge, Histogram, Instrument, powers_of_two

Method: TypeAlias = Literal["single", "batch"]
Family: TypeAlias = Literal["embed", "predict"]
"""Embeddings of any kind; classifications and rerankings."""

LONGEST = 524288
"""Tokens: no bound of `te_request_input_length` is above."""


class _Durations:
    """The histograms of a request's or an input's time and its three parts."""

    def __init__(self, prefix: str, whole: str, of: str = "") -> None:
        meanings = {
            "duration": whole,
            "tokenization_duration": f"Tokenization{of}, the wait for a worker included",
            "queue_duration": f"Wait for the engine{of}",
            "inference_duration": f"Engine's time for the whole batch{of}",
        }
        self.all = [Histogram(f"{prefix}_{name}", "seconds", about, SECONDS) for name, about in meanings.items()]

    def observe(self, total: float, timings: Timings, times: int = 1) -> None:
        whole, tokenization, queue, inference = self.all
        whole.observe(total, times)
        tokenization.observe(timings.tokenization, times)
        queue.observe(timings.queue, times)
        inference.observe(timings.inference, times)


class _Tasks:
    """The inputs of one family."""

    def __init__(self, prefix: str, begun: str, done: str, result: str) -> None:
        self.count = Counter(f"{prefix}_count", "inputs", f"Inputs whose {begun} was begun")
        self.success = Counter(f"{prefix}_success", "inputs", f"Inputs {done}")
        self.durations = _Durations(prefix, f"Time from tokenization to the finished {result}, for each input")
        self.all = (self.count, self.success, *self.durations.all)


class _Batches:
    """The queue, the batches that are made of it, and the engine that runs them."""

    def __init__(self) -> None:
        self.queue_size = Gauge("te_queue_size", "inputs", "Inputs that wait for the engine")
        self.batch_size = Histogram("te_batch_next_size", "inputs", "Inputs of a batch", powers_of_two(4096))
        self.batch_tokens = Histogram(
            "te_batch_next_tokens", "tokens", "Tokens of a batch, padding not counted", powers_of_two(1048576)
        )
        self.oldest = Gauge("tei_queue_age_seconds", "seconds", "How long the oldest input that waits has waited")
        self.tokens = Counter("tei_batch_tokens_total", "tokens", "Tokens the engine was given, padding not counted")
        self.computed_tokens = Counter(
            "tei_batch_computed_tokens_total",
            "tokens",
            "Tokens the engine computed, padding included: one minus `tei_batch_tokens_total` by this is the waste",
        )
        self.budget_tokens = Counter(
            "tei_batch_budget_tokens_total",
            "tokens",
            "Tokens that the same batches could have held: `tei_batch_computed_tokens_total` by this says how full "
            "they were",
        )
        self.busy = Counter(
            "tei_engine_busy_seconds_total",
            "seconds",
            "Time in which at least one batch was in the engine: its rate is the share of time the engine is busy",
        )
        self.replacements = Counter(
            "tei_engine_replacements_total", "engines", "Engines taken into service in place of one that hung or failed"
        )
        self.all: tuple[Instrument, ...] = tuple(vars(self).values())


class Metrics:
    """The metrics of one server. Every method may be called from any thread.

    max_input_length: tokens; where the bounds of `te_request_input_length` end.
    """

    def __init__(self, max_input_length: int) -> None:
        self._lock = threading.Lock()
        self._queue_age: Callable[[], float] | None = None
        self._dropped_lines: Callable[[], int] | None = None
        self._request_count = Counter(
            "te_request_count", "requests", "Requests begun, `single` (one input) or `batch` (a list)", "method"
        )
        self._request_success = Counter("te_request_success", "requests", "Requests answered", "method")
        self._request_failure = Counter(
            "te_request_failure",
            "errors",
            "Errors by kind: `validation`, `batch_size` and `overloaded` (a request that asks for what it can't have), "
            "`model_type`, `tokenization` and `inference` (once for each input), `dropped` (an input whose client left "
            "before it ran)",
            "err",
        )
        self._request = _Durations(
            "te_request", "Time of an answered request, or of an item of a gRPC stream", ", mean over its inputs"
        )
        self._input_length = Histogram(
            "te_request_input_length",
            "tokens",
            "Length of an input after truncation, special tokens included",
            powers_of_two(min(max_input_length, LONGEST)),
        )
        self._tasks: dict[Family, _Tasks] = {
            "embed": _Tasks("te_embed", "embedding (of any kind)", "embedded", "embedding"),
            "predict": _Tasks("te_predict", "classification or reranking", "classified or reranked", "scores"),
        }
        self._batches = _Batches()
        self._fidelity = Gauge(
            "tei_fidelity", "cosine", "Smallest cosine between the vectors of `--dtype` and float32, on built-in texts"
        )
        self._log_dropped = Counter(
            "tei_log_lines_dropped_total", "lines", "Log lines that could not be written, or not as fast as they came"
        )
        self._model = Gauge(
            "tei_model_info",
            "",
            "1, with what is served in its labels; `model_id` is the name that clients see",
            *("model_id", "dtype", "engine", "architecture"),
        )
        self.instruments: tuple[Instrument, ...] = (
            *(self._request_count, self._request_success, self._request_failure, *self._request.all),
            self._input_length,
            *(*self._tasks["embed"].all, *self._tasks["predict"].all, *self._batches.all),
            *(self._fidelity, self._log_dropped, self._model),
        )

    def request_started(self, method: Method) -> None:
        with self._lock:
            self._request_count.add(1, method)

    def request_succeeded(self, method: Method | None, total: float, timings: Timings) -> None:
        """method: None for an item of a gRPC stream, which is timed and not counted."""
        with self._lock:
            if method is not None:
                self._request_success.add(1, method)
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

    def task_started(self, family: Family, inputs: int) -> None:
        """Inputs are on their way to the engine."""
        with self._lock:
            self._tasks[family].count.add(inputs)

    def task_succeeded(self, family: Family, total: float, timings: Timings, inputs: int) -> None:
        """`inputs` inputs of a request were answered, each in the same times."""
        tasks = self._tasks[family]
        with self._lock:
            tasks.success.add(inputs)
            tasks.durations.observe(total, timings, inputs)

    def queue_size(self, inputs: int) -> None:
        with self._lock:
            self._batches.queue_size.set(inputs)

    def watch_queue(self, age: Callable[[], float]) -> None:
        """age: seconds that the oldest waiting input has waited, 0 if none does; asked for when the metrics are."""
        self._queue_age = age

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """dropped: log lines so far that were not written; asked for when the metrics are."""
        self._dropped_lines = dropped

    def batch_formed(self, inputs: int, tokens: int) -> None:
        """A batch left the queue; tokens: without padding."""
        with self._lock:
            self._batches.batch_size.observe(inputs)
            self._batches.batch_tokens.observe(tokens)

    def batch_computed(self, tokens: int, computed_tokens: int, budget_tokens: int) -> None:
        """The engine ran `tokens`, computed more with padding, and could have taken `budget_tokens`."""
        with self._lock:
            self._batches.tokens.add(tokens)
            self._batches.computed_tokens.add(computed_tokens)
            self._batches.budget_tokens.add(max(computed_tokens, budget_tokens))

    def engine_busy(self, seconds: float) -> None:
        with self._lock:
            self._batches.busy.add(seconds)

    def engine_replaced(self) -> None:
        with self._lock:
            self._batches.replacements.add()

    def fidelity(self, cosine: float) -> None:
        """Smallest cosine between the vectors of the chosen dtype and of float32, on built-in texts."""
        with self._lock:
            self._fidelity.set(cosine)

    def model(self, info: ModelInfo) -> None:
        """What is served."""
        with self._lock:
            self._model.set(1, info.served_name, info.dtype, info.engine, info.architecture)

    def render(self) -> bytes:
        """What `GET /metrics` answers: for each used metric a `# TYPE` line, its samples and an empty line."""
        age = self._queue_age() if self._queue_age else 0.0  # takes the queue's lock, so not under ours
        with self._lock:
            if self._batches.queue_size.is_set:
                self._batches.oldest.set(age)
            if self._dropped_lines is not None and (dropped := self._dropped_lines()):
                self._log_dropped.set(dropped)
            used = [(instrument, list(instrument.lines())) for instrument in self.instruments]
        return "".join(
            "\n".join([f"# TYPE {metric.name} {metric.kind}", *lines, "", ""]) for metric, lines in used if lines
        ).encode()
