"""Hundreds of hostile requests of every kind: the server's memory stays bounded, its other clients are served."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.fakes import PATIENCE
from tests.server.test_raw_bytes import ANSWER, BODIES, CLOSE, GOOD, HEADS, LIMIT, check, exchange, post
from tests.server.test_request_forms import REFUSED
from tests.server.test_serve import wait_until_ready

ROUNDS = 100
BYTES = 3_000_000
"""Kinds of long requests are sent less often: so many bytes of each at most."""
GROWTH = 16_000_000
"""Bytes the process may grow by, in all: some 7000 requests that leave 2 kB each behind would be seen."""
SERVER = f"""
from tests.fakes import fake_model
from text_embeddings_inference.server.serve import serve
from text_embeddings_inference.server.sockets import Sockets
from text_embeddings_inference.settings import Settings

settings = Settings.of(model_id="fake", hostname="127.0.0.1", port=0, prometheus_port=0, payload_limit={LIMIT})
sockets = Sockets.bind(settings)
print(sockets.http.getsockname()[1], flush=True)
serve({{"fake": fake_model()}}, settings, sockets)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process in /proc")


class Server:
    """A server process, and how much memory it has in use."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self.process = process
        self._status = Path(f"/proc/{process.pid}/status")

    def said(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def memory(self) -> int:
        """Bytes resident."""
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", self._status.read_text())[0])


@contextmanager
def server(program: str = SERVER) -> Iterator[Server]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            found = Server(process, int(process.stdout.readline()))
            wait_until_ready(("127.0.0.1", found.port))
            yield found
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0
        said.seek(0)
        assert "Traceback" not in said.read()


@contextmanager
def polite_client(port: int) -> Iterator[None]:
    """Asks one thing after another on one connection meanwhile; each must be answered, and right."""
    found: list[tuple[int, bytes]] = []
    end = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while not end.wait(0.005):
            connection.request("POST", "/embed", GOOD, {"content-type": "application/json"})
            response = connection.getresponse()
            found.append((response.status, response.read()))
        connection.close()
        found.append(ANSWER)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        end.set()
        asking.join()
    assert set(found) == {ANSWER}
    assert len(found) > 1


def hostile() -> Iterator[bytes]:
    """One request of each kind."""
    yield from (post(body) for body in BODIES.values())
    yield from HEADS.values()
    yield from (sent for sent, _ in REFUSED.values())


def test_hundreds_of_each_kind() -> None:
    kinds = list(hostile())
    with server() as target, polite_client(target.port):
        for sent in kinds:
            check(exchange(target.port, sent), sent)
        before = target.memory()
        for sent in kinds:
            for _ in range(min(ROUNDS, 1 + BYTES // (len(sent) + 1))):
                exchange(target.port, sent)
        print(before, target.memory() - before)
        assert target.memory() - before < GROWTH


OPEN = {
    "half a head": post(GOOD)[:40],
    "a long half of a head": b"GET / HTTP/1.1\r\nx: " + b"y" * 60_000,
    "many short headers": b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 15_000,
    "half a body": post(b" " * (LIMIT - 1))[: LIMIT // 2],
    "a body that nobody reads": CLOSE.replace(b"close", b"keep-alive\r\ncontent-length: 999999999") + b"x" * LIMIT,
    "requests without end": b"GET /none HTTP/1.1\r\n\r\n" * 20_000,
    "answers without end": b"GET /api-doc/openapi.json HTTP/1.1\r\n\r\n" * 5_000,
}
CONNECTIONS = 50
EACH = 400_000
"""Bytes that one connection may cost the process."""


def test_connections_that_stay_open() -> None:
    """They send what the server takes, read nothing and stay."""
    with server() as target, polite_client(target.port):
        for sent in OPEN.values():
            with ExitStack() as stack:
                before = target.memory()
                for _ in range(CONNECTIONS):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", target.port), PATIENCE))
                    connection.settimeout(0.01)
                    with suppress(TimeoutError):
                        connection.sendall(sent)
                assert target.memory() - before < CONNECTIONS * EACH, sent[:100]
