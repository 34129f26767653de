"""Sends spans to a collector in batches, with opentelemetry's exporters. Imported only if there is a collector.

The spans are made here and not by opentelemetry's own tracer, which takes 30 µs for each: all is known when they are
made, so nothing has to be locked or limited, and only what is traced is made.
"""

from __future__ import annotations

import threading

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags

from ..errors import SettingsError
from .otel_variables import Collector
from .tracing import Span, SpanId

SCOPE = InstrumentationScope("text_embeddings_inference")
SAMPLED = TraceFlags(TraceFlags.SAMPLED)

FLUSH_S = 3.0
"""Seconds that the end of the process waits for the collector to take the last spans."""


class Export:
    """Takes finished spans; a thread of opentelemetry's sends them. What the collector does not take is lost."""

    def __init__(self, collector: Collector, service_name: str) -> None:
        """Raises SettingsError for what opentelemetry can't use."""
        self._resource = _Service({SERVICE_NAME: service_name})
        try:
            self._exporter = _exporter(collector)
            self._processor = BatchSpanProcessor(self._exporter)
        except Exception as problem:  # opentelemetry checks its variables, each in its own way
            raise SettingsError(f"OTEL_* variables: {problem}") from problem

    def __call__(self, span: Span) -> None:
        self._processor.on_end(
            ReadableSpan(
                span.name,
                _context(span.id),
                None if span.parent is None else _context(span.parent, remote=span.remote),
                self._resource,
                span.attributes,
                () if span.problem is None else (Event(span.problem, {"level": "ERROR"}, span.end),),
                () if span.link is None else (Link(_context(span.link)),),
                status=None,  # type: ignore[arg-type]  # unset, which the exporter need not write
                start_time=span.start,
                end_time=span.end,
                instrumentation_scope=SCOPE,
            )
        )

    def close(self) -> None:
        """Sends what is left, and waits `FLUSH_S` seconds at most."""
        flushing = threading.Thread(target=self._processor.shutdown, name="flush", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)
        if flushing.is_alive():
            self._exporter.shutdown()  # ends its waiting between attempts


class _Service(Resource):
    """A resource whose hash, which is asked for each span, is not that of all its attributes."""

    def __hash__(self) -> int:
        return id(self)


def _exporter(collector: Collector) -> SpanExporter:
    if collector.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(collector.url)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(collector.url)


def _context(id_: SpanId, *, remote: bool = False) -> SpanContext:
    return SpanContext(id_.trace, id_.span, remote, SAMPLED)
