"""The server on real sockets: start, signals, ports in use, Unix sockets, TLS, and bytes that are no HTTP."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import grpc
import pytest

from tests.fakes import PATIENCE, FakeEngine, fake_model
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.server.http import listener
from text_embeddings_inference.server.http.connection import Connection
from text_embeddings_inference.server.http.parser import MAX_HEAD
from text_embeddings_inference.server.serve import serve
from text_embeddings_inference.server.sockets import Sockets
from text_embeddings_inference.settings import Settings

LOCAL: dict[str, Any] = {"model_id": "fake", "hostname": "127.0.0.1", "port": 0, "prometheus_port": 0}


def with_server(visit: Callable[[Sockets], None], engine: FakeEngine | None = None, **settings: Any) -> None:
    """Serves while `visit` runs in a thread of its own, then stops the server with SIGTERM."""
    given = Settings.of(**(LOCAL | settings))
    with closing(Sockets.bind(given)) as sockets:
        serve_and_visit(visit, given, sockets, engine)


def serve_and_visit(
    visit: Callable[[Sockets], None], settings: Settings, sockets: Sockets, engine: FakeEngine | None = None
) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            wait_until_ready(sockets.http.getsockname(), sockets.http.family)
            visit(sockets)
        except BaseException as error:
            failures.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    # Until the server takes the signal over, it must not end the tests.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    visitor = threading.Thread(target=run)
    visitor.start()
    try:
        serve({"fake": fake_model(engine)}, settings, sockets)
    finally:
        visitor.join()
        signal.signal(signal.SIGTERM, before)
    for failure in failures:
        raise failure


def wait_until_ready(address: Any, family: int = socket.AF_INET) -> None:
    for _ in range(PATIENCE * 100):
        with socket.socket(family) as probe:
            if probe.connect_ex(address) == 0:
                return
        threading.Event().wait(0.01)
    raise TimeoutError("the server does not listen")


def port(bound: socket.socket) -> int:
    number: int = bound.getsockname()[1]
    return number


def metrics_port(sockets: Sockets) -> int:
    assert sockets.metrics is not None
    return port(sockets.metrics)


def ask(number: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=PATIENCE)
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def send(number: int, text: bytes) -> bytes:
    """Everything that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", number), PATIENCE) as connection:
        connection.sendall(text)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_serves_until_it_is_told_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    def visit(sockets: Sockets) -> None:
        assert ask(port(sockets.http), "POST", "/embed", b'{"inputs": "1"}')[0] == 200
        metrics = ask(port(sockets.http), "GET", "/metrics")
        assert b"te_request_count" in metrics[1]
        assert ask(metrics_port(sockets), "GET", "/anything") == metrics
        assert ask(metrics_port(sockets), "GET", "/health") == (200, b"OK")

    engine = FakeEngine()
    with caplog.at_level(logging.INFO, "text_embeddings_inference"):
        with_server(visit, engine)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("Starting HTTP server: 127.0.0.1:")
    assert (messages[1], messages[-1]) == ("Ready", "signal received, starting graceful shutdown")
    assert engine.closed == 1


def test_nothing_listens_before_the_models_are_there() -> None:
    sockets = Sockets.bind(Settings.of(**LOCAL))
    with socket.socket() as probe:
        assert probe.connect_ex(sockets.http.getsockname()) != 0
    sockets.close()


def test_http_listens_last(caplog: pytest.LogCaptureFixture) -> None:
    def visit(sockets: Sockets) -> None:  # called as soon as HTTP can be reached
        assert ask(metrics_port(sockets), "GET", "/health")[0] == 200
        (number,) = (int(text.rpartition(":")[2]) for text in caplog.messages if "gRPC" in text)
        socket.create_connection(("127.0.0.1", number), PATIENCE).close()

    with caplog.at_level(logging.INFO, "text_embeddings_inference"):
        with_server(visit, grpc_port=0)
    assert [text.partition(":")[0] for text in caplog.messages[:3]] == [
        *("Starting gRPC server", "Starting HTTP server", "Ready")
    ]


def test_the_bytes_of_both_ports_count_together(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()

    def visit(sockets: Sockets) -> None:
        (number,) = (int(text.rpartition(":")[2]) for text in caplog.messages if "gRPC" in text)
        body = json.dumps({"inputs": "2", "unknown": "x" * 60}).encode()
        with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
            engine.hold()
            request = tei.EmbedRequest(inputs="1 " * 30, truncate=True).SerializeToString()
            running = channel.unary_unary("/tei.v1.Embed/Embed").future(request)
            engine.wait_for(1)
            assert ask(port(sockets.http), "POST", "/embed", body)[0] == 429
            engine.let()
            running.result(PATIENCE)
        assert ask(port(sockets.http), "POST", "/embed", body)[0] == 200

    with caplog.at_level(logging.INFO, "text_embeddings_inference"):
        with_server(visit, engine, grpc_port=0, max_queued_bytes=100)


def test_what_is_no_http_gets_a_json_error() -> None:
    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        garbage = send(number, b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        endless = send(number, b"GET / HTTP/1.1\r\nx: " + b"a" * (MAX_HEAD + 1))
        for answer, status in ((garbage, b"400"), (endless, b"431")):
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            assert set(json.loads(body)) == {"error", "error_type"}
        assert ask(number, "GET", "/health")[0] == 200

    with_server(visit)


def test_keeps_a_connection_after_a_body_that_is_too_large() -> None:
    def visit(sockets: Sockets) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port(sockets.http), timeout=PATIENCE)
        for body, status in ((b"x" * 1_000_000, 413), (b'{"inputs": "1"}', 200)):
            connection.request("POST", "/embed", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == status
        connection.close()

    with_server(visit, payload_limit=1000)


def test_chunked_bodies_and_pipelined_requests() -> None:
    def visit(sockets: Sockets) -> None:
        body = b'{"inputs": "1 2", "normalize": false}'
        head = (
            b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = send(port(sockets.http), head + chunks + last)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert b"\r\n\r\n[[2.0,3.0,5.0,9.0]]HTTP/1.1 200 OK" in answer

    with_server(visit)


def test_offer_of_another_protocol_is_ignored() -> None:
    """Java's HttpClient offers HTTP/2 with its first request on a connection."""

    def visit(sockets: Sockets) -> None:
        body = b'{"inputs": "1 2", "normalize": false}'
        offer = b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
        request = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        first = request + offer + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = send(port(sockets.http), first + last)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert b"[[2.0,3.0,5.0,9.0]]" in answer

    with_server(visit)


def test_slow_clients_are_looked_at_again_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = [threading.Event() for _ in range(3)]
    waiting = iter(looked)

    def sweep(*_: object) -> None:
        event = next(waiting, looked[-1])
        event.set()
        if event is not looked[-1]:
            raise RuntimeError("no threads left")

    monkeypatch.setattr(listener, "STEP_S", 0.001)
    monkeypatch.setattr(Connection, "sweep", sweep)

    def visit(sockets: Sockets) -> None:
        with socket.create_connection(sockets.http.getsockname(), PATIENCE):
            assert all(event.wait(PATIENCE) for event in looked)

    with_server(visit)
    assert caplog.text.count("connections could not be looked at") == 1
