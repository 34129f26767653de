"""From bytes to requests, as RFC 9112 reads them: llhttp cuts, and what it lets pass and should not is refused here."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import NoReturn
from urllib.parse import unquote

import httptools

from .errors import HEAD_TOO_LARGE, MALFORMED_REQUEST, NOT_IMPLEMENTED, Reason, RejectedError
from .request import Request

MAX_HEAD = 1 << 16
"""Bytes of request line and headers, or of trailers and what is around chunks."""
CHUNK_FRAME = 16
"""Bytes around each chunk that do not count: its size and two line ends."""
HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
ABSOLUTE = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)


class Phase(Enum):
    """What the parser is in the middle of."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class Parser:
    """Reads the requests of one connection.

    on_request: called with each as soon as its head is complete; wanted: what a request calls when its body is waited
    for.
    """

    def __init__(self, on_request: Callable[[Request], None], wanted: Callable[[], None]) -> None:
        self.phase = Phase.NOTHING
        self.request: Request | None = None
        """The last whose head is complete."""
        self.requests: int = 0
        """So many have begun."""
        self._on_request = on_request
        self._wanted = wanted
        self._fault: RejectedError | None = None
        self._overhead = 0
        """Bytes of the request so far that are not its body."""
        self._declines = False
        """Whether another protocol is offered with this request: it is read again without the offer."""
        self._begin()
        self._parser = self._new_parser()

    def feed(self, data: bytes) -> None:
        """Raises RejectedError; then nothing more can be read."""
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            raise self._fault or RejectedError(MALFORMED_REQUEST, "this is not a valid HTTP/1.1 request") from None
        if self._overhead > MAX_HEAD:
            raise _head_too_large()

    def close(self) -> None:
        """Lets go of everything: parser and connection know each other."""
        del self._parser, self._on_request, self._wanted
        self.request = None

    def path(self) -> str:
        """Of the request that is being received, as far as it has come."""
        return _path(self._target) or ""

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # A request may follow one that asked for the connection's end; it is not answered.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._size = 0

    def _decline(self, rest: bytes) -> None:
        """Reads the head again without the offer to change the protocol (Java's client offers HTTP/2): the parser would
        drop the body."""
        self._headers.pop(b"upgrade", None)
        lines = [b"%b: %b\r\n" % header for header in self._headers.items()]
        method = self._parser.get_method()
        self._declines = False
        self._overhead = 0
        self._parser = self._new_parser()
        self.requests -= 1
        self.feed(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self._target, b"".join(lines)))
        if rest:
            self.feed(rest)

    # --- called by httptools --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.phase = Phase.HEAD
        self.requests += 1
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is not Phase.HEAD:  # a trailer must not pass for a header, such as the one with the key
            return
        name = name.lower()
        self._size += len(name) + len(value) + 4
        if name not in self._headers:
            self._headers[name] = value
        elif name == b"host":
            self._fail(MALFORMED_REQUEST, "there are two `Host` headers")
        elif name == b"authorization" and value != self._headers[name]:
            self._headers[name] += b", " + value  # a list, which is no key

    def on_headers_complete(self) -> None:
        method = self._parser.get_method()
        if len(method) + len(self._target) + len(" HTTP/1.1\r\n\r\n ") + self._size > MAX_HEAD:
            raise self._keep(_head_too_large())
        if self._parser.should_upgrade() and method != b"CONNECT":
            self._declines = True
            return
        version = self._parser.get_http_version()
        self._check(version)
        path = _path(self._target)
        if path is None:
            self._fail(MALFORMED_REQUEST, "the request target is no path")
        keep_alive = version == "1.1" and self._parser.should_keep_alive()
        self.request = Request(method.decode(), path, self._headers, keep_alive=keep_alive, wanted=self._wanted)
        self.phase = Phase.BODY
        self._on_request(self.request)

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body) + CHUNK_FRAME
        assert self.request is not None
        self.request.feed(body)

    def on_message_complete(self) -> None:
        if self._declines:
            return
        self.phase = Phase.NOTHING
        self._overhead = 0
        assert self.request is not None
        self.request.finish()

    def _check(self, version: str) -> None:
        """What RFC 9112 has a server refuse (3.2, 6.1) and llhttp lets pass."""
        if version not in ("1.1", "1.0"):
            self._fail(MALFORMED_REQUEST, f"HTTP/{version} is not spoken here")
        host = self._headers.get(b"host")
        if host is None and version == "1.1":
            self._fail(MALFORMED_REQUEST, "the `Host` header is missing")
        if host is not None and not HOST.fullmatch(host):
            self._fail(MALFORMED_REQUEST, "the `Host` header is no host")
        codings = self._headers.get(b"transfer-encoding")
        if codings is None:
            return
        if version == "1.0":
            self._fail(MALFORMED_REQUEST, "HTTP/1.0 has no `Transfer-Encoding`")
        *others, last = [coding.strip().lower() for coding in codings.split(b",")]
        if last != b"chunked":
            self._fail(MALFORMED_REQUEST, "the last `Transfer-Encoding` of a request must be chunked")
        if others:
            self._fail(NOT_IMPLEMENTED, "no `Transfer-Encoding` but chunked is understood")

    def _fail(self, reason: Reason, message: str) -> NoReturn:
        raise self._keep(RejectedError(reason, message))

    def _keep(self, fault: RejectedError) -> RejectedError:
        """httptools raises an error of its own in place of one of ours."""
        self._fault = fault
        return fault


def _head_too_large() -> RejectedError:
    return RejectedError(HEAD_TOO_LARGE, f"request line and headers are longer than {MAX_HEAD} bytes")


def _path(target: bytes) -> str | None:
    """The path of a request target, percent-decoded; None for what is none (RFC 9112, 3.2)."""
    if target == b"*":
        return "*"
    if not target.startswith(b"/"):
        absolute = ABSOLUTE.match(target)
        if absolute is None:
            return None
        target = target[absolute.end() :]
    path = target.partition(b"?")[0].partition(b"#")[0].decode("latin-1") or "/"
    return unquote(path) if "%" in path else path
