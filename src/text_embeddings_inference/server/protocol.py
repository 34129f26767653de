"""uvicorn's HTTP/1.1 protocol with a limit on the head of a request, and JSON where it would answer with plain text."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .errors import HEAD_TOO_LARGE, MALFORMED_REQUEST, ErrorResponse, Reason

MAX_HEAD = 1 << 16
"""Bytes of request line, headers, trailers and what is around chunks, together."""
CHUNK_ROOM = 16
"""Bytes around each chunk that do not count: its size and two line ends."""
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._extra = 0
        """Bytes of this request received so far that are not its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._together = Together(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._together))

    def eof_received(self) -> None:
        self._together.flush()  # the transport closes itself next, and does not know what waits here
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        self._extra += len(data)
        super().data_received(_without_upgrade(data) if self._in_head else data)
        if self._extra > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE, f"request line and headers are longer than {MAX_HEAD} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer must not pass for a header, such as the one with the key
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._extra -= len(body) + CHUNK_ROOM
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._extra = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(MALFORMED_REQUEST, msg)

    def _refuse(self, reason: Reason, message: str) -> None:
        """Answers in place of the application, and closes the connection."""
        body = msgspec.json.encode(ErrorResponse(message, reason.error_type))
        self.transport.write(
            STATUS_LINE[reason.status]
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()


class Together:
    """A transport that sends what is written in one iteration of the event loop in one system call.

    uvicorn writes the head of a response and its body apart, which costs another call here and another wake-up there.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written.clear()


def _without_upgrade(data: bytes) -> bytes:
    """Hides an offer to change the protocol (Java's client offers HTTP/2): the parser would drop the body after it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest if UPGRADE.search(head) else data
