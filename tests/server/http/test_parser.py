"""What RFC 9112 has a server refuse, and what it has to take."""

from __future__ import annotations

import pytest

from tests.server.http.connected import BODY, HEALTH, TYPE, Client, connected
from text_embeddings_inference.server.http.parser import MAX_HEAD

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


@pytest.mark.parametrize(
    ("keys", "status"),
    [((b"key",), 200), ((b"key", b"key"), 200), ((b"key", b"other"), 401), ((b"other", b"key"), 401)],
)
def test_two_keys(keys: tuple[bytes, ...], status: int) -> None:
    lines = b"".join(b"authorization: Bearer %b\r\n" % key for key in keys)

    async def test(client: Client) -> None:
        await client.send(b"GET /info HTTP/1.1\r\nhost: x\r\n%b\r\n" % lines)
        assert await client.answers(1) == [status]

    connected(test, api_key=("key",))


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
