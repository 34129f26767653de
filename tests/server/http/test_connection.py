"""One connection, without a network: what its protocol writes, and when it ends it. The time is set by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.fakes import FakeEngine, fake_model
from text_embeddings_inference.server.app import App
from text_embeddings_inference.server.http.connection import MOST_UNREAD, MOST_UNSENT, SLICE, Connection, Site
from text_embeddings_inference.server.http.memory_budget import UnsentAnswers
from text_embeddings_inference.server.http.parser import MAX_HEAD
from text_embeddings_inference.server.http.timeouts import LINGER_S, LOWEST_RATE, STRIDE, Timeouts
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
        app = App({"fake": self.model}, Settings.of(model_id="fake", **settings))
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


@pytest.mark.parametrize("sent", [HEALTH[:1], HEALTH[:-1], post()[:-1], HEALTH + post()[:-20]])
def test_half_a_request_gets_408(sent: bytes) -> None:
    async def test(client: Client) -> None:
        await client.send(sent)
        client.wait(1)
        assert client.wait(9) == ""
        assert client.wait(1) == "closed"
        assert client.transport.written.count(b"HTTP/1.1 408 Request Timeout\r\n") == 1
        assert client.refusal() == {"error": "the rest of the request did not come in time", "error_type": "Timeout"}

    connected(test)


@pytest.mark.parametrize("size", [50, 130])
def test_half_a_request_to_openai_gets_its_error(size: int) -> None:
    async def test(client: Client) -> None:
        await client.send(post(path=b"/v1/embeddings?x")[:size])
        client.wait(11)
        assert client.refusal()["error"]["code"] == 408

    connected(test)


def test_a_byte_at_a_time_gains_no_time() -> None:
    async def test(client: Client) -> None:
        for byte in post()[:20]:
            client.connection.data_received(bytes([byte]))
            client.wait(1)
        await client.send()
        assert await client.answers(1) == [408]

    connected(test)


def test_long_bodies_have_time_for_each_stride() -> None:
    async def test(client: Client) -> None:
        body = BODY + b" " * 5 * STRIDE
        sent = post(body)
        for start in range(0, len(sent), STRIDE):
            await client.send(sent[start : start + STRIDE])
            assert client.wait(9) == ""
        assert await client.answers(1) == [200]

    connected(test)


def test_idle_connections_end_after_their_own_time() -> None:
    async def test(client: Client) -> None:
        assert client.wait(50) == ""
        await client.send(HEALTH)
        assert client.wait(100) == ""
        assert client.wait(1000, Timeouts(client=10, idle=None)) == ""
        assert client.wait(1) == "closed"
        assert await client.answers(1) == [200]

    connected(test)


def test_who_does_not_read_is_cut_off() -> None:
    async def test(client: Client) -> None:
        client.transport.takes = 10
        await client.send(HEALTH)
        assert client.wait(9) == ""
        client.transport.close()  # as the server does when it shuts down
        assert client.wait(2) == "aborted"

    connected(test)


def test_who_reads_all_in_time_may_go_on() -> None:
    async def test(client: Client) -> None:
        for _ in range(10):
            client.transport.take(0)
            await client.send(post(path=b"/info"), *[HEALTH] * (2 * MOST_UNSENT // len(HEALTH)))
            assert client.wait(9) == ""
            client.transport.take(1 << 30)
            await client.send()
            client.wait(1)

    connected(test)


def test_who_reads_a_long_answer_too_slowly_is_cut_off() -> None:
    """A stride in time is not enough for ever: some megabytes would be held for hours."""

    async def test(client: Client) -> None:
        client.transport.take(0)
        await client.send(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n")
        await client.answers(1)
        assert client.unsent.used > 5 * LOWEST_RATE
        for _ in range(12):
            client.transport.take(STRIDE // 4)
            client.wait(2)
        assert client.transport.end == "aborted"
        client.leave()
        assert client.unsent.used == 0

    connected(test)


def test_who_was_refused_may_not_send_for_ever() -> None:
    async def test(client: Client) -> None:
        await client.send(b"POST /none HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n")
        assert await client.answers(1) == [404]
        for _ in range(10):
            await client.send(b"x" * STRIDE)
            assert client.wait(1) == ""
        client.wait(1)
        assert client.transport.end == "closed"
        assert await client.answers(1) == [404]

    connected(test)


def test_the_engine_may_take_as_long_as_it_likes() -> None:
    engine = FakeEngine()
    engine.hold()

    async def test(client: Client) -> None:
        await client.send(post())
        assert client.wait(100_000) == ""
        engine.let()
        assert await client.answers(1) == [200]

    connected(test, engine)


@pytest.mark.parametrize(
    ("second", "status"), [(b"\x00\r\n\r\n", 400), (HEALTH[:9], 408), (post(more=b"content-length: 1\r\n"), 400)]
)
def test_a_refusal_comes_after_the_answers_before_it(second: bytes, status: int) -> None:
    engine = FakeEngine()
    engine.hold()

    async def test(client: Client) -> None:
        await client.send(post(), second)
        client.wait(11)
        assert client.transport.written == b""
        engine.let()
        assert await client.answers(2) == [200, status]
        assert client.transport.said_eof

    connected(test, engine)


def test_a_fault_in_a_body_that_waits_for_its_turn() -> None:
    engine = FakeEngine()
    engine.hold()

    async def test(client: Client) -> None:
        await client.send(
            post(), HEALTH, b"POST /embed HTTP/1.1\r\n" + TYPE + b"transfer-encoding: chunked\r\n\r\nxx\r\n"
        )
        engine.let()
        assert await client.answers(3) == [200, 200, 400]

    connected(test, engine)


def test_a_fault_in_a_body_that_was_refused_already_gets_no_second_answer() -> None:
    async def test(client: Client) -> None:
        await client.send(b"POST /none HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        await client.send(b"xx\r\n")
        assert await client.answers(1) == [404]
        assert client.transport.said_eof

    connected(test)


def test_requests_are_parsed_as_fast_as_they_are_answered() -> None:
    engine = FakeEngine()
    engine.hold()
    small = HEALTH
    count = 5 * SLICE // len(small)

    async def test(client: Client) -> None:
        await client.send(post())
        client.connection.data_received(small * count)
        assert not client.transport.reads
        assert client.wait(100) == ""
        engine.let()
        assert await client.answers(count + 1) == [200] * (count + 1)
        assert client.transport.reads

    connected(test, engine)


def test_a_client_that_asks_first_is_answered_first() -> None:
    async def test(client: Client) -> None:
        await client.send(post(more=b"expect: 100-continue\r\n")[: -len(BODY)])
        assert client.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BODY)
        assert await client.answers(1) == [200]
        assert client.transport.end == "closed"

    connected(test)


def test_a_client_that_asks_first_and_is_refused_is_told_that_the_connection_ends() -> None:
    """What it sends next could be the body or another request."""

    async def test(client: Client) -> None:
        await client.send(post(more=b"expect: 100-continue\r\n", path=b"/none")[: -len(BODY)])
        assert await client.answers(1) == [404]
        assert b"connection: close\r\n" in client.transport.written
        await client.send(HEALTH)
        assert await client.answers(1) == [404]

    connected(test)


def test_a_client_that_still_sends_can_read_its_refusal() -> None:
    """Closing the connection under it would reset it, and the answer would be lost: Python's urllib sends this way."""

    async def test(client: Client) -> None:
        await client.send(post(b"x" * 100_000, b"connection: close\r\n")[:50_000])
        assert await client.answers(1) == [413]
        assert client.transport.said_eof
        await client.send(b"x" * 50_000)
        assert client.wait(LINGER_S) == ""
        assert client.wait(1) == "aborted"

    connected(test, payload_limit=1000)


def test_a_body_is_received_as_fast_as_it_is_read() -> None:
    async def test(client: Client) -> None:
        body = BODY + b" " * 5 * MOST_UNREAD
        sent = post(body)
        client.connection.data_received(sent[: 2 * MOST_UNREAD])
        assert not client.transport.reads
        await client.send()
        assert client.transport.reads
        await client.send(sent[2 * MOST_UNREAD :])
        assert await client.answers(1) == [200]

    connected(test)


def test_a_client_that_leaves_in_the_middle_of_its_body() -> None:
    async def test(client: Client) -> None:
        await client.send(post()[:-1])
        client.leave()
        assert len(client.site.abandoned) == 1
        await client.send()
        assert not client.site.abandoned
        assert client.transport.written == b""

    connected(test)


# --- what RFC 9112 has a server refuse --------------------------------------------------------------------------------

GOOD_HEAD = b"POST /embed HTTP/1.1\r\n" + TYPE
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "the `Host` header is missing"),
        (b"GET /health HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n", 400, "there are two `Host` headers"),
        (b"GET /health HTTP/1.1\r\nhost: a/b@c\r\n\r\n", 400, "the `Host` header is no host"),
        (b"GET health HTTP/1.1\r\nhost: a\r\n\r\n", 400, None),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "the request target is no path"),
        (b"GET /health HTTP/2.0\r\nhost: a\r\n\r\n", 400, "HTTP/2.0 is not spoken here"),
        (GOOD_HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS, 501, "no `Transfer-Encoding` but chunked"),
        (GOOD_HEAD + b"transfer-encoding: gzip\r\n\r\n" + CHUNKS, 400, "the last `Transfer-Encoding`"),
        (GOOD_HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n" + CHUNKS, 400, None),
        (GOOD_HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n" + CHUNKS, 400, None),
        (b"POST /embed HTTP/1.0\r\n" + TYPE + b"transfer-encoding: chunked\r\n\r\n" + CHUNKS, 400, "HTTP/1.0 has no"),
        (GOOD_HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\n{}\n", 400, None),
        (b"GET /health HTTP/1.1\r\nhost : x\r\n\r\n", 400, None),
        (b"GET /health HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", 400, None),
    ],
)
def test_refused_heads(sent: bytes, status: int, message: str | None) -> None:
    async def test(client: Client) -> None:
        await client.send(sent, HEALTH)
        assert await client.answers(1) == [status]
        assert client.refusal()["error"].startswith(message or "this is not a valid HTTP/1.1 request")
        assert client.transport.said_eof

    connected(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost:\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        b"GET http://any.example/health?x#y HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /%68ealth HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        GOOD_HEAD + b"transfer-encoding: Chunked\r\n\r\n" + CHUNKS,
    ],
)
def test_accepted_heads(sent: bytes) -> None:
    async def test(client: Client) -> None:
        await client.send(sent)
        assert await client.answers(1) == [200]

    connected(test)


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
@pytest.mark.parametrize("parts", [1, 7])
def test_the_limit_of_the_head_is_exact(more: int, status: int, parts: int) -> None:
    start, end = b"GET /health HTTP/1.1\r\nhost: x\r\ny: ", b"\r\n\r\n"
    sent = start + b"z" * (MAX_HEAD + more - len(start) - len(end)) + end
    size = len(sent) // parts + 1

    async def test(client: Client) -> None:
        await client.send(*(sent[place : place + size] for place in range(0, len(sent), size)))
        assert await client.answers(1) == [status]

    connected(test)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "body", [b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY), b"transfer-encoding: chunked\r\n\r\n" + CHUNKS]
)
def test_an_offer_of_another_protocol_is_declined(size: int, body: bytes) -> None:
    """Java's client offers HTTP/2 so; the offer may come in pieces, and another request behind it."""
    sent = GOOD_HEAD + b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + body + HEALTH

    async def test(client: Client) -> None:
        await client.send(*(sent[place : place + size] for place in range(0, len(sent), size)))
        assert await client.answers(2) == [200, 200]
        assert b"[[2.0,3.0,5.0,9.0]]HTTP/1.1 200" in client.transport.written

    connected(test)


# --- too many connections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"), [(HEALTH, 200), (post(), 503), (b"POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n", 503)]
)
def test_beyond_the_limit_only_probes_are_answered(sent: bytes, status: int) -> None:
    async def test(client: Client) -> None:
        connection = Connection(client.site, client.lost.append, beyond_limit=True)
        transport = Transport(connection)
        connection.connection_made(transport)
        connection.data_received(sent + HEALTH)
        await client.send()
        assert re.findall(rb"HTTP/1\.1 (\d{3}) ", transport.written) == [b"%d" % status]
        assert transport.end == "closed"
        connection.connection_lost(None)

    connected(test)
