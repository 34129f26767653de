"""Connections of real sockets: as many as may be, those kept for probes, silent ones, and a server that was paused."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fakes import PATIENCE
from tests.server.test_hostile_clients import SERVER, server
from tests.server.test_raw_bytes import GOOD, exchange, post
from tests.server.test_serve import ask, port, with_server
from tests.server.test_tls import make_certificate, needs_openssl
from text_embeddings_inference.server.connections import HELD_FILES, PROBES
from text_embeddings_inference.server.http import listener
from text_embeddings_inference.server.sockets import Sockets

EMBED = ("POST", "/embed", b'{"inputs": "1"}')


def connect(stack: ExitStack, number: int, count: int) -> list[socket.socket]:
    """So many connections that say nothing."""
    return [stack.enter_context(socket.create_connection(("127.0.0.1", number), PATIENCE)) for _ in range(count)]


def counted(stack: ExitStack, number: int) -> socket.socket:
    """A connection that is one of those that may be; it is idle after a request."""
    while True:  # one that was closed may be counted for a moment longer
        (connection,) = connect(stack, number, 1)
        connection.sendall(post(GOOD).replace(b"connection: close", b"connection: keep-alive"))
        if connection.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
            return connection


@pytest.mark.parametrize("more", [0, 5, PROBES + 5])
def test_probes_are_answered_when_all_connections_are_taken(more: int) -> None:
    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        with ExitStack() as stack:
            taken = [counted(stack, number) for _ in range(3)]
            connect(stack, number, more)
            for _ in range(3):
                assert ask(number, "GET", "/health")[0] == 200
                assert ask(number, "GET", "/metrics")[0] == 200
                status, body = ask(number, *EMBED)
                assert (status, b'"Overloaded"' in body) == (503, True)
            taken[0].sendall(post(GOOD))
            assert taken[0].recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            taken[1].close()
            until_status(number, 200)

    with_server(visit, max_connections=3)


def test_silent_connections_beyond_the_limit_end_before_those_that_have_asked() -> None:
    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        with ExitStack() as stack:
            counted(stack, number)
            (asked,) = connect(stack, number, 1)
            asked.sendall(post(GOOD)[:-2])
            assert asked.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
            silent = connect(stack, number, PROBES + 5)
            assert all(connection.recv(1) == b"" for connection in silent[:6])
            asked.sendall(b"x")
            assert asked.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "it was reset"

    with_server(visit, max_connections=1)


def test_connections_that_end_while_they_open_leave_no_task_behind() -> None:
    """The server says nothing of it: `server` looks for a traceback."""
    few = SERVER.replace("payload_limit=", "max_connections=1, payload_limit=")
    with server(few) as target, ExitStack() as stack:
        counted(stack, target.port)
        for _ in range(200):
            with ExitStack() as burst:
                for connection in connect(burst, target.port, PROBES):
                    connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")


def until_status(number: int, status: int) -> None:
    for _ in range(PATIENCE * 100):
        if ask(number, *EMBED)[0] == status:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"no {status}")


NO_FILES = SERVER.replace(
    "sockets = ",
    """
import os, resource, threading
from text_embeddings_inference.server.http import listener

def open_all():
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        print("none left", flush=True)

def ready(self):
    threading.Timer(0.1, open_all).start()

resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
entered = listener.Listener.__aenter__
async def enter(self):
    found = await entered(self)
    if self._socket.getsockname() == sockets.http.getsockname():
        ready(self)
    return found
listener.Listener.__aenter__ = enter
sockets = """,
)


def test_probes_are_answered_when_no_descriptor_is_left() -> None:
    with server(NO_FILES) as target:
        assert target.said() == "none left"
        with ExitStack() as stack:
            for _ in range(5):
                connect(stack, target.port, HELD_FILES)
                assert ask(target.port, "GET", "/health")[0] == 200
                assert ask(target.port, "GET", "/metrics")[0] == 200


# --- a server that is paused ------------------------------------------------------------------------------------------


@contextmanager
def paused(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGCONT)


PAUSE_S = 2.5
"""More than the time-outs, and than what the server counts as a pause."""


def test_a_pause_of_the_server_counts_against_no_client() -> None:
    """Their bytes came while it could not read them."""
    short = SERVER.replace("payload_limit=", "client_timeout=2, keep_alive_timeout=2, payload_limit=")
    with server(short) as target, ExitStack() as stack:
        upload, kept = connect(stack, target.port, 2)
        upload.sendall(post(GOOD)[:-10])
        with paused(target.process, PAUSE_S):
            upload.sendall(post(GOOD)[-10:])
            kept.sendall(post(GOOD))
        for connection in (upload, kept):
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_many_short_pauses_count_against_no_client() -> None:
    """The process runs for half a second altogether, and its clients may take one."""
    short = SERVER.replace("payload_limit=", "client_timeout=1, keep_alive_timeout=1, payload_limit=")
    with server(short) as target, ExitStack() as stack:
        upload, kept = connect(stack, target.port, 2)
        upload.sendall(post(GOOD)[:-10])
        for _ in range(5):
            with paused(target.process, 0.9):
                pass
            time.sleep(0.05)
        with paused(target.process, 0.0):
            upload.sendall(post(GOOD)[-10:])
            kept.sendall(post(GOOD))
        for connection in (upload, kept):
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


# --- TLS --------------------------------------------------------------------------------------------------------------


@needs_openssl
def test_silent_handshakes_count_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_S", 1.0)
    files = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(files["tls_cert"]))

    def health(number: int) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", number, timeout=PATIENCE, context=context)
        connection.request("GET", "/health")
        status = connection.getresponse().status
        connection.close()
        return status

    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        with ExitStack() as stack:
            silent = connect(stack, number, PROBES + 10)
            assert health(number) == 200
            assert all(connection.recv(1) == b"" for connection in silent)
        assert exchange(number, b"GET / HTTP/1.1\r\n\r\n") == b""
        assert health(number) == 200

    with_server(visit, max_connections=3, **files)
