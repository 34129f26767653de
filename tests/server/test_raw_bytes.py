"""Bytes that no client should send: each gets an answer of 4xx or a closed connection, and nobody else notices."""

from __future__ import annotations

import json
import random
import re
import socket

import pytest

from tests.fakes import PATIENCE
from tests.server.test_serve import ask, port, with_server
from text_embeddings_inference.server.sockets import Sockets

SEED = 4
LIMIT = 200_000
"""Bytes in a body."""
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
GOOD = b'{"inputs": "1 2", "normalize": false}'
ANSWER = (200, b"[[2.0,3.0,5.0,9.0]]")
TYPE = b"content-type: application/json\r\n"
HEAD = b"POST /embed HTTP/1.1\r\nhost: x\r\n" + TYPE
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
CLOSE = b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
DEEP = 90_000
PIECES = (b"\r\n", b"\n", b"\x00", b"\xff", b"{", b"]", b'"', b"\\ud800", b":", b"-1", b"9" * 20, b"content-length: 3")


def post(body: bytes, path: bytes = b"/embed") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" % path + TYPE
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def exchange(number: int, *parts: bytes, end: bool = True) -> bytes:
    """What comes back until the server closes the connection; end: say that nothing more will be sent.

    Raises TimeoutError if the server does neither answer nor close.
    """
    found = b""
    with socket.create_connection(("127.0.0.1", number), PATIENCE) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                found += part
        except TimeoutError:
            raise
        except OSError:
            pass  # closed before everything was read
    return found


def check(answer: bytes, sent: bytes) -> None:
    """Nothing, or answers that are 4xx, the last of them whole and a JSON error."""
    statuses = [int(status) for status in STATUS.findall(answer)]
    assert all(400 <= status < 500 for status in statuses), (sent[:300], answer[:300])
    if answer:
        assert statuses, (sent[:300], answer[:300])
        head, _, body = answer.rpartition(b"\r\n\r\n")
        assert b"content-type: application/json" in head
        assert "error" in json.loads(body), (sent[:300], answer[:300])


BODIES = {
    "empty": b"",
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep inputs": b'{"inputs": %b1%b}' % (b"[" * DEEP, b"]" * DEEP),
    "deep objects": b'{"inputs":' * 10_000 + b"1" + b"}" * 10_000,
    "deep unknown field": b'{"x": %b%b, "inputs": "1"}' % (b"[" * (DEEP // 2), b"]" * (DEEP // 2)),
    "too large": b'{"inputs": "%b"}' % (b"1 " * LIMIT),
    "too long": b'{"inputs": "%b", "truncate": false}' % (b"1 " * 50_000),
    "too many": b'{"inputs": [%b"1"]}' % (b'"1",' * 20_000),
    "duplicate": b'{"inputs": "1", "inputs": "2"}',
    "duplicate beside a huge number": b'{"inputs": "1", "x": %b, "inputs": "2"}' % (b"1" * 5_000),
    "huge number": b'{"inputs": "1", "dimensions": %b}' % (b"9" * 100_000),
    "huge exponent": b'{"inputs": "1", "dimensions": 1e999999999}',
    "invalid UTF-8": b'{"inputs": "\xff\xfe"}',
    "invalid UTF-8 in an unknown field": b'{"inputs": "1", "x": "\xc3("}',
    "lone surrogate": b'{"inputs": "\\ud800"}',
    "control character": b'{"inputs": "\x00"}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
}


HEADS = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"FETCH /health HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "long path": b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n" % (b"a" * 1_000_000),
    "percent": b"GET /%ff%fe%00%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200_000 + b"\r\n",
    "long header": b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"y" * 1_000_000),
    "zero in a header": b"GET /health HTTP/1.1\r\nhost: x\x00y\r\n\r\n",
    "huge length": HEAD + b"content-length: %b\r\n\r\n" % (b"9" * 5_000) + GOOD,
    "length beyond the limit": HEAD + b"content-length: 999999999999\r\n\r\n" + GOOD,
    "length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "length too small": HEAD + b"content-length: 5\r\n\r\n" + GOOD,
    "length too large": HEAD + b"content-length: 99\r\n\r\n" + GOOD,
    "unknown encoding": HEAD + b"transfer-encoding: zip\r\n\r\n" + GOOD,
    "no chunk size": CHUNKED + b"zz\r\n",
    "huge chunk size": CHUNKED + b"f" * 100 + b"\r\n",
    "chunk longer than its size": CHUNKED + b"1\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunks beyond the limit": CHUNKED + b"10000\r\n%b\r\n" % (b" " * 65_536) * 10 + b"0\r\n\r\n",
    "unfinished chunk": CHUNKED + b"25\r\n" + GOOD,
    "endless trailers": CHUNKED + b"1\r\n{\r\n0\r\n" + b"x: y\r\n" * 500_000 + b"\r\n",
    "pipelined faults": HEAD + b"content-length: 1\r\n\r\n{" + CLOSE,
    "pipelined garbage": HEAD + b"content-length: 1\r\n\r\n{" + b"\x00\x01\x02\r\n\r\n",
    "nothing": b"",
}


def test_faulty_bodies() -> None:
    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        for body in BODIES.values():
            sent = post(body)
            answer = exchange(number, sent, end=False)
            check(answer, sent)
            assert answer, sent[:300]
            assert ask(number, "POST", "/embed", GOOD) == ANSWER
            for path in (b"/decode", b"/rerank", b"/similarity", b"/v1/embeddings", b"/vertex"):
                check(exchange(number, post(body, path), end=False), sent)

    with_server(visit, payload_limit=LIMIT)


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
def test_what_is_no_request(sent: bytes) -> None:
    def visit(sockets: Sockets) -> None:
        check(exchange(port(sockets.http), sent), sent)
        assert ask(port(sockets.http), "POST", "/embed", GOOD) == ANSWER

    with_server(visit, payload_limit=LIMIT)


def test_mutations_of_requests() -> None:
    """Random damage may leave a request that is well-formed, or make it two: then 200 is right."""
    random_ = random.Random(SEED)
    chunked = CHUNKED + b"10\r\n%b\r\n15\r\n%b\r\n0\r\n\r\n" % (GOOD[:16], GOOD[16:])

    def damage(sent: bytes) -> bytes:
        for _ in range(random_.randint(1, 4)):
            start = random_.randrange(len(sent))
            end = start + random_.choice((0, 1, 1, 10, 100))
            sent = sent[:start] + random_.choice((b"", sent[start:end] * 2, *PIECES)) + sent[end:]
            sent = sent or b"x"
        return sent

    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        for round_ in range(1500):
            sent = damage(random_.choice((post(GOOD), chunked, chunked * 2, post(GOOD, b"/v1/embeddings"))))
            cut = random_.randrange(len(sent))
            answer = exchange(number, sent[:cut], sent[cut:])
            assert all(status[:1] in (b"2", b"3", b"4") for status in STATUS.findall(answer)), sent
            if round_ % 50 == 0:
                assert ask(number, "POST", "/embed", GOOD) == ANSWER

    with_server(visit)


def test_slow_clients_hold_nobody_up() -> None:
    """Hundreds of connections that stop in the middle of a request; then one byte at a time."""

    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        request = post(GOOD)
        open_ = [socket.create_connection(("127.0.0.1", number), PATIENCE) for _ in range(200)]
        for place, connection in enumerate(open_):
            connection.sendall(request[: 1 + place % (len(request) - 1)])
        assert ask(number, "POST", "/embed", GOOD) == ANSWER
        for connection in open_[::2]:
            connection.close()
        for place, connection in enumerate(open_):
            if place % 2:
                for byte in request[1 + place % (len(request) - 1) :]:
                    connection.sendall(bytes([byte]))
                with connection, connection.makefile("rb") as answer:
                    assert answer.read().startswith(b"HTTP/1.1 200 OK")
        assert ask(number, "POST", "/embed", GOOD) == ANSWER

    with_server(visit)


def test_trailers_are_no_headers_and_have_an_end() -> None:
    def visit(sockets: Sockets) -> None:
        number = port(sockets.http)
        body = CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(GOOD), GOOD)
        assert b" 401 " in exchange(number, body + b"authorization: Bearer key\r\n\r\n")
        assert exchange(number, body, b"x: y\r\n" * 5_000_000, end=False).count(b"HTTP/1.1") == 1

    with_server(visit, api_key=("key",))
