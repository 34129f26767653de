"""How a request is counted, timed and logged, whatever protocol it came by."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ..errors import OverloadedError, RequestError, presentation
from ..inference.model import Answer, Model
from ..settings import Settings
from ..telemetry.logging import Span, request_span, write
from ..telemetry.metrics import Method
from ..telemetry.throttle import Throttle
from ..types import Usage

T = TypeVar("T")

logger = logging.getLogger(__name__)

COMPUTE_TYPE = b"cpu"


class Timed(NamedTuple, Generic[T]):
    """What the model answered, and what it cost; total: seconds in the handler."""

    value: T
    usage: Usage
    total: float


def usage_headers(done: Timed[Any]) -> tuple[tuple[bytes, bytes], ...]:
    """What a request cost, as headers of HTTP and, by the same names, metadata of gRPC."""
    usage, total = done.usage, done.total
    timings = usage.timings
    return (
        (b"x-compute-type", COMPUTE_TYPE),
        (b"x-compute-time", _milliseconds(total)),
        (b"x-compute-characters", b"%d" % usage.characters),
        (b"x-compute-tokens", b"%d" % usage.tokens),
        (b"x-total-time", _milliseconds(total)),
        (b"x-tokenization-time", _milliseconds(timings.tokenization)),
        (b"x-queue-time", _milliseconds(timings.queue)),
        (b"x-inference-time", _milliseconds(timings.inference)),
    )


def _milliseconds(seconds: float) -> bytes:
    """Rounded down."""
    return b"%d" % int(seconds * 1000)


REFUSALS_EVERY_S = 1.0
"""Requests that were refused for want of room are logged together, once in so many seconds: thousands may come, and a
line for each would cost what is left. `/metrics` counts them all."""


class Accounting:
    """Of the requests to one model."""

    def __init__(self, model: Model, clock: Callable[[], float] = time.perf_counter) -> None:
        self._metrics = model.metrics
        self._tracer = model.tracer
        self._clock = clock
        self._refusals = Throttle(REFUSALS_EVERY_S, clock)

    async def timed(self, name: str, method: Method | None, call: Awaitable[Answer[T]]) -> Timed[T]:
        """Awaits the model's answer; counts, times, logs and traces the request.

        name: of the span; method: None for a request that text-embeddings-inference times and does not count.
        """
        if self._tracer is None:
            return await self._timed(name, method, call)
        with self._tracer.request(name) as trace:
            done = await self._timed(name, method, call)
            trace.attributes = request_span(name, done.total, done.usage).fields
        return done

    async def logged(self, name: str, call: Awaitable[T]) -> T:
        """Awaits a call that is not timed; logs its failure, and traces it."""
        if self._tracer is None:
            return await self._logged(name, call)
        with self._tracer.request(name):
            return await self._logged(name, call)

    async def _timed(self, name: str, method: Method | None, call: Awaitable[Answer[T]]) -> Timed[T]:
        start = self._clock()
        if method is not None:
            self._metrics.request_started(method)
        value, usage = await self._logged(name, call)
        total = self._clock() - start
        self._metrics.request_succeeded(method, total, usage.timings)
        if logger.isEnabledFor(logging.INFO):
            write(logger, logging.INFO, "Success", request_span(name, total, usage))
        return Timed(value, usage, total)

    def failed(self, error: RequestError) -> None:
        """Counts a failure, under the label of its class, for all inputs it stands for: no other place does."""
        self._metrics.request_failed(presentation(error).metric_label, error.inputs)

    @contextmanager
    def counting_failures(self, name: str) -> Iterator[None]:
        """Counts and logs what fails before the model is asked."""
        try:
            yield
        except RequestError as error:
            self.refused(name, error)
            raise

    async def _logged(self, name: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except RequestError as error:
            self.refused(name, error)
            raise

    def refused(self, name: str, error: RequestError) -> None:
        """Counts and logs a failure."""
        self.failed(error)
        if isinstance(error, OverloadedError):
            if requests := self._refusals.passes():
                write(logger, logging.ERROR, error.logged, Span(name, {"requests": requests}))
        else:
            write(
                logger, logging.ERROR, error.logged, Span(name, {} if error.place is None else {"place": error.place})
            )


@dataclass(frozen=True, slots=True)
class Served:
    """What requests are answered with, whatever protocol they come by."""

    model: Model
    settings: Settings
    accounting: Accounting

    @staticmethod
    def of(model: Model, settings: Settings) -> Served:
        return Served(model, settings, Accounting(model))
