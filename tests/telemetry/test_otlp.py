"""Spans on their way to a collector, by both protocols; and a collector that is not there."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.fakes import PATIENCE
from tests.telemetry.receivers import Received, attributes, grpc_receiver, http_receiver
from text_embeddings_inference.errors import SettingsError
from text_embeddings_inference.telemetry import otlp
from text_embeddings_inference.telemetry.otel_variables import Collector, Protocol
from text_embeddings_inference.telemetry.otlp import Export
from text_embeddings_inference.telemetry.tracing import Span, SpanId

Receiver = Callable[[], AbstractContextManager[Received]]

REQUEST = Span("embed", SpanId(1 << 100, 2), SpanId(1 << 100, 9), 10, 30, {"total_time": "1ms"}, remote=True)
PART = Span("inference", SpanId(1 << 100, 3), REQUEST.id, 20, 25, link=SpanId(7, 8))
BATCH = Span("batch", SpanId(7, 8), None, 20, 25, {"inputs": 3}, problem="RuntimeError")

BOTH = pytest.mark.parametrize(
    ("receiver", "protocol", "path"),
    [
        pytest.param(grpc_receiver, "grpc", "", id="grpc"),
        pytest.param(http_receiver, "http/protobuf", "/v1/traces", id="http"),
    ],
)


@BOTH
def test_spans_arrive(receiver: Receiver, protocol: Protocol, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=me")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "not this")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "nor=this")
    with receiver() as received:
        export = Export(Collector(protocol, received.url + path), "some.service")
        for span in (REQUEST, PART, BATCH):
            export(span)
        export.close()
    assert received.headers["x-tenant"] == "me"
    assert received.path == path
    assert received.resources == [{"service.name": "some.service"}]
    request, part, batch = received.spans
    assert (request.name, request.start_time_unix_nano, request.end_time_unix_nano) == ("embed", 10, 30)
    assert request.trace_id == (1 << 100).to_bytes(16, "big")
    assert (request.span_id, request.parent_span_id) == ((2).to_bytes(8, "big"), (9).to_bytes(8, "big"))
    assert attributes(request) == {"total_time": "1ms"}
    assert not request.events
    assert part.parent_span_id == request.span_id
    assert [(link.trace_id, link.span_id) for link in part.links] == [(batch.trace_id, batch.span_id)]
    assert (batch.parent_span_id, attributes(batch)) == (b"", {"inputs": 3})
    assert [(event.name, attributes(event)) for event in batch.events] == [("RuntimeError", {"level": "ERROR"})]
    assert batch.status.code == 0


@BOTH
def test_full_batches_are_sent_at_once(
    receiver: Receiver, protocol: Protocol, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with receiver() as received:
        export = Export(Collector(protocol, received.url + path), "x")
        export(REQUEST)
        export(PART)
        assert received.wait_for(2)
        export.close()


@BOTH
def test_collector_that_is_not_there(
    receiver: Receiver, protocol: Protocol, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests go on, and the end does not wait for attempts that would follow."""
    monkeypatch.setattr(otlp, "FLUSH_S", 0.2)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        export = Export(Collector(protocol, f"http://127.0.0.1:{nobody.getsockname()[1]}{path}"), "x")
        with caplog.at_level(logging.WARNING, "opentelemetry"):
            for _ in range(3000):  # more than are kept
                export(REQUEST)
            closing = threading.Thread(target=export.close)
            closing.start()
            closing.join(PATIENCE)
    assert not closing.is_alive()
    assert any(record.name.startswith("opentelemetry") for record in caplog.records)


def test_variables_that_opentelemetry_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "bzip3")
    with pytest.raises(SettingsError, match=r"OTEL_\* variables: .*bzip3"):
        Export(Collector("grpc", "http://127.0.0.1:1"), "x")
