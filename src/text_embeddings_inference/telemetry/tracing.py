"""Traces: a span for each request, with its parts as children, and one for each batch that the engine ran.

Everything is written down when it is over: a `Trace` gathers when the parts of a request began and ended, and its spans
are made at its end. Nothing here imports opentelemetry; `otlp` does, which sends the spans.

    embed                      the request, in the trace of its caller
    ├── tokenization           of a piece of it
    ├── queue                  from there until its batch began
    └── inference ··link··▶ batch    the engine's time for the batch, which is a trace of its own

A request that the sampler leaves out costs nothing more. A batch is exported with the first request that links to it.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from .otel_variables import ALL, Sampler

Attributes: TypeAlias = Mapping[str, str | int]

NOTHING: Attributes = MappingProxyType({})
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
SAMPLED = 1
"""The bit of a traceparent's flags that says that the caller is traced."""


class SpanId(NamedTuple):
    """Which span of which trace."""

    trace: int
    """128 bits."""
    span: int
    """64 bits."""


class Span(NamedTuple):
    """A span that is over."""

    name: str
    id: SpanId
    parent: SpanId | None
    start: int
    """Nanoseconds since 1970."""
    end: int
    """Nanoseconds since 1970."""
    attributes: Attributes = NOTHING
    link: SpanId | None = None
    """A span of another trace."""
    problem: str | None = None
    """What went wrong; None if nothing did."""
    remote: bool = False
    """Whether the parent is another process's."""


@dataclass(slots=True, eq=False)
class BatchRun:
    """A batch that the engine ran; its span is exported with the first request that links to it."""

    span: Span
    start: float
    """Seconds of the tracer's clock."""
    end: float
    """Seconds of the tracer's clock."""
    exported: bool = False


class Caller(NamedTuple):
    """The span that a request was sent in, by its own account."""

    id: SpanId
    is_traced: bool
    """Whether that span is recorded."""


PARENT: ContextVar[Caller | None] = ContextVar("PARENT", default=None)
"""The request's caller. Set by the server only if it traces."""
CURRENT: ContextVar[Trace | None] = ContextVar("CURRENT", default=None)
"""The request that the running task answers, if it is traced."""


def parse_traceparent(text: str) -> Caller | None:
    """The caller from the header of that name (https://www.w3.org/TR/trace-context); None if it is not valid."""
    found = TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    trace, span, flags = (int(digits, 16) for digits in found.groups())
    return Caller(SpanId(trace, span), bool(flags & SAMPLED)) if trace and span else None


class Tracer:
    """Traces requests and batches. Every method may be called from any thread."""

    def __init__(
        self,
        export: Callable[[Span], None],
        clock: Callable[[], float] = time.perf_counter,
        epoch: Callable[[], int] = time.time_ns,
        sampler: Sampler = ALL,
    ) -> None:
        """export: takes the finished spans; clock: the one that all times are taken from, in seconds; epoch:
        nanoseconds since 1970; sampler: says which requests are traced."""
        self._export = export
        self._sampler = sampler
        self._epoch = epoch
        self.clock = clock

    @contextmanager
    def request(self, name: str) -> Iterator[Trace]:
        """A request that is answered where the `with` is; its spans are exported at its end."""
        parent, is_traced = PARENT.get() or (None, None)
        trace = Trace(parent, self.clock())
        if not self._sampler.takes(trace.id.trace, is_traced):
            yield trace
            return
        token = CURRENT.set(trace)
        problem: str | None = None
        try:
            yield trace
        except BaseException as error:
            problem = type(error).__name__  # the message may quote what the client sent
            raise
        finally:
            CURRENT.reset(token)
            end = self.clock()
            offset = self._offset()
            remote = trace.parent is not None
            own = (name, trace.id, trace.parent, *_nanoseconds(trace.start, end, offset))
            self._export(Span(*own, trace.attributes, None, problem, remote))
            for part, start, stop, run in trace.parts:
                id_, link = SpanId(trace.id.trace, _random(64)), None if run is None else run.span.id
                self._export(Span(part, id_, trace.id, *_nanoseconds(start, stop, offset), link=link))
                if run is not None and not run.exported:
                    run.exported = True
                    self._export(run.span)

    def batch(self, start: float, attributes: Attributes, problem: str | None = None) -> BatchRun:
        """The engine ran a batch, from `start` of the clock until now. Where it failed, no request will link to it."""
        end = self.clock()
        times = _nanoseconds(start, end, self._offset())
        span = Span("batch", SpanId(_random(128), _random(64)), None, *times, attributes, problem=problem)
        run = BatchRun(span, start, end)
        if problem is not None and self._sampler.takes(span.id.trace, None):
            run.exported = True
            self._export(span)
        return run

    def _offset(self) -> int:
        """From the clock's nanoseconds to those since 1970; taken anew, for the two don't run alike."""
        return self._epoch() - round(self.clock() * 1e9)


class Trace:
    """A request on its way. Used from one event loop."""

    def __init__(self, parent: SpanId | None, start: float) -> None:
        self.id = SpanId(parent.trace if parent else _random(128), _random(64))
        self.parent = parent
        self.start = start
        self.attributes = NOTHING
        self.parts: list[tuple[str, float, float, BatchRun | None]] = []

    def tokenized(self, start: float, end: float) -> None:
        """A piece of the request became tokens."""
        self.parts.append(("tokenization", start, end, None))

    def ran(self, batches: Iterable[tuple[BatchRun | None, float]]) -> None:
        """Inputs were answered: the batch of each, and how long it had waited for it. Each batch is taken once."""
        for batch, waited in dict(batches).items():
            if batch is not None:
                self.parts.append(("queue", batch.start - waited, batch.start, None))
                self.parts.append(("inference", batch.start, batch.end, batch))


def _random(bits: int) -> int:
    return random.getrandbits(bits) or 1  # 0 is no id


def _nanoseconds(start: float, end: float, offset: int) -> tuple[int, int]:
    return round(start * 1e9) + offset, round(end * 1e9) + offset
