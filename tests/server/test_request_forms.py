"""Requests that few clients send: whatever their form, each gets the answer of its path, or a 4xx with a JSON error."""

from __future__ import annotations

import json
import re

import pytest

from tests.server.test_raw_bytes import CHUNKED, GOOD, HEAD, TYPE, exchange, post
from tests.server.test_serve import port, with_server
from text_embeddings_inference.server.sockets import Sockets

END = b"host: x\r\nconnection: close\r\n\r\n"
VECTOR = b"[[2.0,3.0,5.0,9.0]]"


def embed(headers: bytes, body: bytes = GOOD) -> bytes:
    return b"POST /embed HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + headers + b"\r\n" + body


LENGTH = b"content-length: %d\r\n" % len(GOOD)
CHUNKS = b"transfer-encoding: chunked\r\n"
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)

ANSWERED = {
    "absolute form": (b"GET http://other/health HTTP/1.1\r\n" + END, b""),
    "absolute form without a path": (b"GET http://other HTTP/1.1\r\n" + END, b""),
    "absolute form with a query alone": (b"GET http://other?x=/y HTTP/1.1\r\n" + END, b""),
    "query": (b"GET /health?a=%zz&b HTTP/1.1\r\n" + END, b""),
    "fragment": (b"GET /health#x HTTP/1.1\r\n" + END, b""),
    "percent": (b"GET /%68ealth HTTP/1.1\r\n" + END, b""),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", b""),
    "HTTP/1.0 with keep-alive": (b"GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", b""),
    "empty lines first": (b"\r\n\r\nGET /health HTTP/1.1\r\n" + END, b""),
    "HEAD": (b"HEAD /info HTTP/1.1\r\n" + END, b""),
    "OPTIONS": (b"OPTIONS /embed HTTP/1.1\r\n" + END, b""),
    "OPTIONS of everything": (b"OPTIONS * HTTP/1.1\r\n" + END, b""),
    "OPTIONS with a body": (b"OPTIONS /embed HTTP/1.1\r\ncontent-length: 3\r\n" + END + b"xyz", b""),
    "GET with a body": (b"GET /health HTTP/1.1\r\ncontent-length: 3\r\n" + END + b"xyz", b""),
    "type twice": (embed(TYPE + TYPE + LENGTH), VECTOR),
    "unknown expectation": (embed(TYPE + b"expect: 200-ok\r\n" + LENGTH), VECTOR),
    "chunk extension": (
        embed(TYPE + CHUNKS, CHUNK.replace(b"\r\n", b";a=b\r\n", 1)),
        VECTOR,
    ),
    "infinity in an unknown field": (post(GOOD[:-1] + b', "x": 1e999}'), VECTOR),
}
REFUSED = {
    "no host": (b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
    "two hosts": (b"GET /health HTTP/1.1\r\nhost: y\r\n" + END, 400),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\n" + END, 400),
    "no slash": (b"GET health HTTP/1.1\r\n" + END, 400),
    "asterisk": (b"GET * HTTP/1.1\r\n" + END, 404),
    "two slashes": (b"GET //health HTTP/1.1\r\n" + END, 404),
    "dots": (b"GET /x/../health HTTP/1.1\r\n" + END, 404),
    "trailing slash": (b"GET /health/ HTTP/1.1\r\n" + END, 404),
    "line end in percent": (b"GET /%0d%0ax:y HTTP/1.1\r\n" + END, 404),
    "surrogate in percent": (b"GET /%ed%a0%80 HTTP/1.1\r\n" + END, 404),
    "no percent": (b"GET /%zz HTTP/1.1\r\n" + END, 404),
    "UTF-8 in the path": ("GET /é HTTP/1.1\r\n".encode() + END, 400),
    "HTTP/2.0": (b"GET /health HTTP/2.0\r\n" + END, 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "line ends without return": (b"GET /health HTTP/1.1\nhost: x\n\n", 400),
    "TRACE": (b"TRACE /embed HTTP/1.1\r\n" + END, 405),
    "lower case": (b"get /health HTTP/1.1\r\n" + END, 400),
    "folded header": (b"GET /health HTTP/1.1\r\nx: a\r\n b\r\n" + END, 400),
    "blank before the colon": (b"GET /health HTTP/1.1\r\nx : a\r\n" + END, 400),
    "header without a name": (b"GET /health HTTP/1.1\r\n: a\r\n" + END, 400),
    "length twice": (embed(TYPE + LENGTH + LENGTH), 400),
    "negative length": (embed(TYPE + b"content-length: -1\r\n"), 400),
    "signed length": (embed(TYPE + b"content-length: +37\r\n"), 400),
    "no length": (embed(TYPE), 400),
    "other type first": (embed(b"content-type: text/plain\r\n" + TYPE + LENGTH), 415),
    "negative chunk": (CHUNKED + b"-1\r\n" + GOOD, 400),
    "prefixed chunk": (CHUNKED + b"0x25\r\n" + GOOD, 400),
    "chunked twice": (HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n" + CHUNK, 400),
    "compressed body": (embed(TYPE + b"content-encoding: gzip\r\ncontent-length: 4\r\n", b"\x1f\x8b\x08\x00"), 415),
    "infinity": (post(b'{"inputs": "1", "dimensions": 1e999}'), 422),
    "infinite id": (post(b'{"inputs": [1e999]}'), 422),
    "NaN": (post(b'{"inputs": NaN}'), 400),
    "NaN in an unknown field": (post(b'{"inputs": "1", "x": NaN}'), 400),
    "deep unknown field": (post(b'{"inputs": "1", "x": %b%b}' % (b"[" * 10_000, b"]" * 10_000)), 400),
}


@pytest.mark.parametrize("kind", ["answered", "refused"])
def test_forms(kind: str) -> None:
    def visit(sockets: Sockets) -> None:
        cases = ANSWERED.items() if kind == "answered" else REFUSED.items()
        for name, (sent, wanted) in cases:
            head, _, body = exchange(port(sockets.http), sent, end=False).partition(b"\r\n\r\n")
            status = int(re.findall(rb"^HTTP/1\.1 (\d{3}) ", head)[0])
            if kind == "answered":
                assert (name, status, body) == (name, 200, wanted)
            else:
                assert (name, status) == (name, wanted)
                assert set(json.loads(body)) == {"error", "error_type"}, name

    with_server(visit)
