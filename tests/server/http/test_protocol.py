"""One connection, without a network: what its protocol writes, and when it ends it. The time is set by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.fakes import FakeEngine, fake_model
from text_embeddings_inference.server.app import create_app
from text_embeddings_inference.server.http.protocol import MOST_REFUSED, SLICE, HttpProtocol
from text_embeddings_inference.server.http.timeouts import LINGER_S, STRIDE, Patience
from text_embeddings_inference.server.http.transport import Together
from text_embeddings_inference.settings import Settings

PATIENCE = Patience(client=10, idle=100)
BODY = b'{"inputs": "1 2", "normalize": false}'
TYPE = b"host: x\r\ncontent-type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


def post(body: bytes = BODY, more: bytes = b"", path: bytes = b"/embed") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n%b" % (path, TYPE, more, len(body), body)


class Transport(asyncio.Transport):
    """Keeps what is written; `unsent` is what its client has not taken yet."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.end = ""
        self.said_eof = False
        self.reads = True

    def write(self, data: Any) -> None:
        assert not self.end, "uvloop raises here"
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

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


class Connection:
    """A client's end, and the clock."""

    def __init__(self, engine: FakeEngine, **settings: Any) -> None:
        given = Settings.of(model_id="fake", **settings)
        self.model = fake_model(engine)
        config = uvicorn.Config(create_app({"fake": self.model}, given), interface="asgi3", log_config=None)
        self.state = ServerState()
        self.protocol = HttpProtocol(config, self.state, {})
        self.transport = Transport()
        self.protocol.connection_made(self.transport)
        self.now = 0.0
        self.protocol.sweep(self.now, PATIENCE)

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.data_received(part)
        await asyncio.sleep(0.01)  # enough for all that needs no engine

    async def answers(self, count: int) -> list[int]:
        """Waits for so many answers; the statuses of all of them."""
        while len(found := re.findall(rb"HTTP/1\.1 (\d{3}) (?!Continue)", self.transport.written)) < count:
            await asyncio.sleep(0.01)
        return [int(status) for status in found]

    def wait(self, seconds: float, patience: Patience = PATIENCE) -> str:
        """How the connection has ended after so many seconds, each with a sweep; empty: not yet."""
        for _ in range(int(seconds)):
            self.now += 1
            self.protocol.sweep(self.now, patience)
        return self.transport.end

    def refusal(self) -> Any:
        """The last answer, which is an error."""
        head, _, body = self.transport.written.rpartition(b"\r\n\r\n")
        assert b"content-type: application/json\r\nconnection: close" in head
        return json.loads(body)


def connected(
    test: Callable[[Connection], Coroutine[Any, Any, None]], engine: FakeEngine | None = None, **settings: Any
) -> None:
    async def run() -> None:
        connection = Connection(engine or FakeEngine(), **settings)
        try:
            await test(connection)
        finally:
            connection.protocol.connection_lost(None)
            await asyncio.gather(*connection.state.tasks)
            await connection.model.close()

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("sent", [HEALTH[:1], HEALTH[:-1], post()[:-1], HEALTH + post()[:-20]])
def test_half_a_request_gets_408(sent: bytes) -> None:
    async def test(client: Connection) -> None:
        await client.send(sent)
        client.wait(1)
        assert client.wait(9) == ""
        assert client.wait(1) == "closed"
        assert client.transport.written.count(b"HTTP/1.1 408 Request Timeout\r\n") == 1
        assert client.refusal() == {"error": "the rest of the request did not come in time", "error_type": "Timeout"}

    connected(test)


@pytest.mark.parametrize("size", [50, 130])
def test_half_a_request_to_openai_gets_its_error(size: int) -> None:
    async def test(client: Connection) -> None:
        await client.send(post(path=b"/v1/embeddings?x")[:size])
        client.wait(11)
        assert client.refusal()["error"]["code"] == 408

    connected(test)


def test_a_byte_at_a_time_gains_no_time() -> None:
    async def test(client: Connection) -> None:
        for byte in post()[:20]:
            client.protocol.data_received(bytes([byte]))
            client.wait(1)
        await client.send()
        assert await client.answers(1) == [408]

    connected(test)


def test_long_bodies_have_time_for_each_stride() -> None:
    async def test(client: Connection) -> None:
        body = BODY + b" " * 5 * STRIDE
        sent = post(body)
        for start in range(0, len(sent), STRIDE):
            await client.send(sent[start : start + STRIDE])
            assert client.wait(9) == ""
        assert await client.answers(1) == [200]

    connected(test)


def test_idle_connections_end_after_their_own_time() -> None:
    async def test(client: Connection) -> None:
        assert client.wait(50) == ""
        await client.send(HEALTH)
        assert client.wait(100) == ""
        assert client.wait(1000, Patience(client=10, idle=None)) == ""
        assert client.wait(1) == "closed"
        assert await client.answers(1) == [200]

    connected(test)


def test_who_does_not_read_is_cut_off() -> None:
    async def test(client: Connection) -> None:
        await client.send(HEALTH)
        client.transport.unsent = 3 * STRIDE
        for unsent in (3 * STRIDE, 2 * STRIDE, STRIDE, 10, 9):
            client.transport.unsent = unsent
            assert client.wait(5) == ""
        client.transport.close()  # as the server does when it shuts down
        assert client.wait(5) == "aborted"

    connected(test)


def test_who_catches_up_in_time_may_go_on() -> None:
    async def test(client: Connection) -> None:
        client.transport.unsent = STRIDE
        for _ in range(10):
            client.protocol.pause_writing()
            assert client.wait(9) == ""
            client.protocol.resume_writing()

    connected(test)


def test_who_was_refused_may_not_send_for_ever() -> None:
    async def test(client: Connection) -> None:
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

    async def test(client: Connection) -> None:
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

    async def test(client: Connection) -> None:
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

    async def test(client: Connection) -> None:
        await client.send(
            post(), HEALTH, b"POST /embed HTTP/1.1\r\n" + TYPE + b"transfer-encoding: chunked\r\n\r\nxx\r\n"
        )
        engine.let()
        assert await client.answers(3) == [200, 200, 400]

    connected(test, engine)


def test_a_fault_in_a_body_that_was_refused_already_gets_no_second_answer() -> None:
    async def test(client: Connection) -> None:
        await client.send(b"POST /none HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        await client.send(b"xx\r\n")
        assert await client.answers(1) == [404]
        assert client.transport.said_eof

    connected(test)


def test_requests_are_parsed_as_fast_as_they_are_answered() -> None:
    engine = FakeEngine()
    engine.hold()
    small = b"GET /health HTTP/1.1\r\n\r\n"
    count = 5 * SLICE // len(small)

    async def test(client: Connection) -> None:
        await client.send(post())
        client.protocol.data_received(small * count)
        assert len(client.protocol.pipeline) <= SLICE // len(small) + 1
        assert not client.transport.reads
        assert client.wait(100) == ""
        engine.let()
        assert await client.answers(count + 1) == [200] * (count + 1)
        assert client.transport.reads

    connected(test, engine)


def test_a_client_that_asks_first_is_answered_first() -> None:
    async def test(client: Connection) -> None:
        await client.send(post(more=b"expect: 100-continue\r\n")[: -len(BODY)])
        assert client.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BODY)
        assert await client.answers(1) == [200]
        assert client.transport.end == "closed"

    connected(test)


def test_a_client_that_asks_first_and_is_refused_is_told_that_the_connection_ends() -> None:
    """What it sends next could be the body or another request."""

    async def test(client: Connection) -> None:
        await client.send(post(more=b"expect: 100-continue\r\n", path=b"/none")[: -len(BODY)])
        assert await client.answers(1) == [404]
        assert b"connection: close\r\n" in client.transport.written
        await client.send(HEALTH)
        assert await client.answers(1) == [404]

    connected(test)


def test_a_client_that_still_sends_can_read_its_refusal() -> None:
    """Closing the connection under it would reset it, and the answer would be lost: Python's urllib sends this way."""

    async def test(client: Connection) -> None:
        await client.send(post(b"x" * 100_000, b"connection: close\r\n")[:50_000])
        assert await client.answers(1) == [413]
        assert client.transport.said_eof
        await client.send(b"x" * 50_000)
        assert client.wait(LINGER_S) == ""
        assert client.wait(1) == "aborted"

    connected(test, payload_limit=1000)


def test_what_a_client_that_left_would_have_got_is_dropped() -> None:
    async def test() -> None:
        transport = Transport()
        Together(transport, asyncio.get_running_loop()).write(b"late")
        transport.abort()
        await asyncio.sleep(0)
        assert transport.written == b""

    asyncio.run(test())


# --- too many connections ---------------------------------------------------------------------------------------------


def test_one_connection_too_many_is_refused_and_the_others_stay() -> None:
    async def test(first: Connection) -> None:
        config = first.protocol.config
        transports = [Transport() for _ in range(MOST_REFUSED + 2)]
        for transport in transports:
            HttpProtocol(config, first.state, {}, most_connections=1).connection_made(transport)
        await first.send(HEALTH)
        for transport in transports:
            assert transport.written.startswith(b"HTTP/1.1 503 ")
            assert transport.said_eof
        assert {transport.end for transport in transports[:-2]} == {""}, "they may read it"
        assert transports[-1].end == "closed", "there are too many of those, too"
        assert await first.answers(1) == [200]

    connected(test)
