"""One connection, without a network: what it writes, and when it ends. The time is set by hand."""

from __future__ import annotations

import re

import pytest

from tests.fakes import FakeEngine
from tests.server.http.connected import BODY, HEALTH, TYPE, Client, Transport, connected, post
from text_embeddings_inference.server.http.connection import MOST_UNREAD, SLICE, Connection
from text_embeddings_inference.server.http.sender import MOST_UNSENT
from text_embeddings_inference.server.http.timeouts import LINGER_S, LOWEST_RATE, STRIDE, Timeouts


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
