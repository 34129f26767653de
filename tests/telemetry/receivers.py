"""Collectors of traces for as long as a test runs: OTLP by gRPC and by HTTP, as far as spans go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import opentelemetry.exporter.otlp.proto.grpc.trace_exporter  # keeps the `os.environ` there is when it is imported,
import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401  # which a test may have replaced
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tests.fakes import PATIENCE


class Received:
    """What has come in. headers: of the last request, or its metadata; path: of the last HTTP request."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: dict[str, str] = {}
        self.path = ""
        self._requests: list[ExportTraceServiceRequest] = []
        self._changed = threading.Condition()

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def wait_for(self, spans: int) -> bool:
        """Whether so many have come in, in all."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.spans) >= spans, PATIENCE)

    @property
    def spans(self) -> list[Any]:
        """In the order they were exported."""
        return [
            span
            for request in self._requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resources(self) -> list[dict[str, str]]:
        """The attributes of each."""
        found = [resource.resource for request in self._requests for resource in request.resource_spans]
        return [attributes(resource) for resource in found]


def attributes(of: Any) -> dict[str, Any]:
    """Those of a span, an event or a resource."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


@contextmanager
def grpc_receiver() -> Iterator[Received]:
    received = Received()

    class Service(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
            received.headers = dict(context.invocation_metadata())
            received.take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]  # generated
    received.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextmanager
def http_receiver() -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.headers = {name.lower(): value for name, value in self.headers.items()}
            received.path = self.path
            body = self.rfile.read(int(self.headers["content-length"]))
            received.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is written."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
