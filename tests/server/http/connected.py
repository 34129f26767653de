"""One connection without a network: a client whose pace and clock are set by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from tests.fakes import FakeEngine, fake_model
from text_embeddings_inference.server.app import App
from text_embeddings_inference.server.http.connection import Connection, Site
from text_embeddings_inference.server.http.memory_budget import MemoryBudget, UnsentAnswers
from text_embeddings_inference.server.http.timeouts import Timeouts
from text_embeddings_inference.settings import Settings

TIMEOUTS = Timeouts(client=10, idle=100)
BODY = b'{"inputs": "1 2", "normalize": false}'
TYPE = b"host: x\r\ncontent-type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


TURNS = 10
"""Of the event loop, in which all is done that needs no engine."""


def post(body: bytes = BODY, more: bytes = b"", path: bytes = b"/embed") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n%b" % (path, TYPE, more, len(body), body)


class Transport(asyncio.Transport):
    """Keeps what is written. The client takes it at once, unless `takes` says how many bytes in all."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.written = b""
        self.takes: float = float("inf")
        self.end = ""
        self.said_eof = False
        self.reads = True
        self._protocol = protocol
        self._most = 0
        self._paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._most = high or 0

    def write(self, data: Any) -> None:
        assert not self.end, "uvloop raises here"
        self.written += data
        if self.get_write_buffer_size() > self._most and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def take(self, count: float) -> None:
        """The client reads so many bytes more, if they are there."""
        self.takes = min(self.takes, len(self.written)) + count
        if self._paused and not self.get_write_buffer_size():
            self._paused = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return int(max(0, len(self.written) - self.takes))

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.said_eof = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Client:
    """A client's end, and the clock."""

    def __init__(self, engine: FakeEngine, **settings: Any) -> None:
        self.model = fake_model(engine)
        given = Settings.of(model_id="fake", **settings)
        app = App({"fake": self.model}, given, MemoryBudget(given.limits.max_queued_bytes))
        self.unsent = UnsentAnswers(None)
        self.site = Site(app, self.unsent, lambda: b"today")
        self.lost: list[Connection] = []
        self.connection = Connection(self.site, self.lost.append)
        self.transport = Transport(self.connection)
        self.connection.connection_made(self.transport)
        self.now = 0.0
        self.connection.sweep(self.now, TIMEOUTS)

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.data_received(part)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def leave(self) -> None:
        if self.connection not in self.lost:
            self.connection.connection_lost(None)

    async def answers(self, count: int) -> list[int]:
        """Waits for so many answers; the statuses of all of them."""
        while len(found := re.findall(rb"HTTP/1\.1 (\d{3}) (?!Continue)", self.transport.written)) < count:
            await asyncio.sleep(0)
        return [int(status) for status in found]

    def wait(self, seconds: float, timeouts: Timeouts = TIMEOUTS) -> str:
        """How the connection has ended after so many seconds, each with a sweep; empty: not yet."""
        for _ in range(int(seconds)):
            self.now += 1
            self.connection.sweep(self.now, timeouts)
        return self.transport.end

    def refusal(self) -> Any:
        """The last answer, which is an error."""
        head, _, body = self.transport.written.rpartition(b"\r\n\r\n")
        assert b"content-type: application/json\r\n" in head
        assert head.endswith(b"connection: close")
        return json.loads(body)


def connected(
    test: Callable[[Client], Coroutine[Any, Any, None]], engine: FakeEngine | None = None, **settings: Any
) -> None:
    async def run() -> None:
        client = Client(engine or FakeEngine(), **settings)
        try:
            await test(client)
        finally:
            client.leave()
            assert client.lost.count(client.connection) == 1
            await asyncio.gather(*client.site.abandoned, return_exceptions=True)
            await client.model.close()

    asyncio.run(asyncio.wait_for(run(), 10))
