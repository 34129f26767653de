"""Clients that stop half-way, on real sockets; `http/test_connection.py` has the rules."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest

from tests.fakes import PATIENCE
from tests.server.test_raw_bytes import GOOD, exchange, post
from tests.server.test_serve import ask, metrics_port, port, with_server
from text_embeddings_inference.server.sockets import Sockets


@pytest.mark.parametrize("sent", [b"GET /hea", post(GOOD)[:-1]])
def test_half_a_request_gets_408(sent: bytes) -> None:
    def visit(sockets: Sockets) -> None:
        head, _, body = exchange(port(sockets.http), sent, end=False).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error_type"] == "Timeout"

    with_server(visit, client_timeout=1)


def test_idle_connections_are_closed() -> None:
    def visit(sockets: Sockets) -> None:
        assert exchange(port(sockets.http), end=False) == b""
        assert exchange(metrics_port(sockets), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", end=False).startswith(
            b"HTTP/1.1 200"
        )

    with_server(visit, keep_alive_timeout=1)


def test_slow_clients_do_not_keep_the_server_from_stopping() -> None:
    """One does not read its answers, which are more than the sockets hold; one does not send the rest of its body."""
    with ExitStack() as stack:

        def visit(sockets: Sockets) -> None:
            number = port(sockets.http)
            deaf, mute = (
                stack.enter_context(socket.create_connection(("127.0.0.1", number), PATIENCE)) for _ in range(2)
            )
            deaf.sendall(b"GET /api-doc/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
            mute.sendall(post(GOOD)[:-1])
            assert ask(number, "GET", "/health")[0] == 200

        with_server(visit, client_timeout=1)
