"""uvicorn's HTTP/1.1 protocol, made safe against clients that send or read too much, too slowly, or not HTTP at all.

- A head is limited in size (431), and whoever stops in the middle of a request or of an answer is not waited for for
  ever (408): `HttpProtocol.sweep`.
- Requests that a client sends without waiting for answers are parsed only as fast as they are answered.
- A refusal is JSON, comes after the answers to earlier requests, and reaches a client that is still sending.
"""

from __future__ import annotations

import asyncio
import logging
import re
from enum import Enum
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .errors import HEAD_TOO_LARGE, MALFORMED_REQUEST, NO_CONNECTION, TIMEOUT, Failure, Reason, RejectedError
from .timeouts import LINGER_S, STRIDE, Patience
from .transport import Flow, Together

logger = logging.getLogger(__name__)

MAX_HEAD = 1 << 16
"""Bytes of request line, headers, trailers and what is around chunks, together."""
CHUNK_ROOM = 16
"""Bytes around each chunk that do not count: its size and two line ends."""
SLICE = 1 << 14
"""Bytes that are parsed at a time: so many small requests wait in one connection's queue at most."""
MOST_REFUSED = 100
"""Refused connections that may stay until their clients have read the refusal; with more, it is sent and no more."""
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Phase(Enum):
    """What the parser is in the middle of."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, most_connections: int | None = None, **kwargs: Any) -> None:
        """most_connections: one more is refused."""
        super().__init__(*args, **kwargs)
        self._most_connections = most_connections
        self._phase = Phase.NOTHING
        self._requests = 0
        self._received = 0
        self._extra = 0
        """Bytes of this request received so far that are not its body."""
        self._held = bytearray()
        """Received and not parsed yet, because requests before it wait for their turn."""
        self._deaf = False
        """What is received is dropped: there was a fault, or the connection is about to end."""
        self._lingering = False
        self._refusal: bytes | None = None
        """To be sent once the requests before the refused one have been answered."""
        self._drained = 0
        """How often a client that was too slow for us has caught up."""
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0

    # --- connection and parser ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._together = Together(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._together))
        self.flow: Flow = Flow(transport)
        if self._most_connections is not None and len(self.connections) > self._most_connections:
            self._refuse(NO_CONNECTION, f"there are {self._most_connections} connections already")
            if len(self.connections) > self._most_connections + MOST_REFUSED:
                self.transport.close()

    def eof_received(self) -> None:
        self._together.flush()  # the transport closes itself next, and does not know what waits here
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._received += len(data)
        if len(data) <= SLICE and not self._held and not self.pipeline:
            self._parse(data)
        else:
            self._held += data
            self._parse_held()

    def _parse_held(self) -> None:
        """Parses what was held back, until a request has to wait for the answer to the one before it."""
        while self._held and not self.pipeline and not self._deaf:
            part = bytes(self._held[:SLICE])
            del self._held[:SLICE]
            self._parse(part)
        self.flow.hold(bool(self._held))

    def _parse(self, data: bytes) -> None:
        self._extra += len(data)
        try:
            self.parser.feed_data(data if self._phase is Phase.BODY else _without_upgrade(data))
        except httptools.HttpParserUpgrade:
            pass  # an offer that came in pieces; no other protocol is spoken here
        except httptools.HttpParserError as error:
            logger.debug("a request can't be read", exc_info=error)
            self._refuse(MALFORMED_REQUEST, "this is not a valid HTTP/1.1 request")
        if self._extra > MAX_HEAD:
            self._refuse(HEAD_TOO_LARGE, f"request line and headers are longer than {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        self._phase = Phase.HEAD
        self._requests += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.HEAD:  # a trailer must not pass for a header, such as the one with the key
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Raises ValueError, which the parser turns into a 400, for versions that are not HTTP/1."""
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError("not HTTP/1")
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            self.url = b"/"  # as in `GET http://host HTTP/1.1`
        super().on_headers_complete()
        self._phase = Phase.BODY
        if self.expect_100_continue:  # refused, it may be followed by its body or by another request: nobody can tell
            self.cycle.keep_alive = False
        if not self.cycle.keep_alive:
            self.cycle.transport = _PoliteTransport(self)  # type: ignore[assignment]  # all that a cycle uses of one

    def on_body(self, body: bytes) -> None:
        self._extra -= len(body) + CHUNK_ROOM
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.NOTHING
        self._extra = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn's, without its timer for idle connections (that is `sweep`'s), and with what was held back."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._lingering:
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
            return
        if self._held:
            self._parse_held()
        else:
            self.flow.hold(False)

    def resume_writing(self) -> None:
        self._drained += 1
        super().resume_writing()

    # --- slow clients ---------------------------------------------------------------------------------------------

    def sweep(self, now: float, patience: Patience) -> None:
        """Ends the connection if its client has kept us waiting for too long; to be called about once a second.

        Nothing is noted per request: a sweep that finds the connection as the last one left it lets the time run on.
        """
        waiting_for, limit, end = self._waiting_for(patience)
        if waiting_for != self._seen:
            self._seen, self._seen_at = waiting_for, now
        elif limit is not None and now - self._seen_at >= limit:
            end()

    def _waiting_for(self, patience: Patience) -> tuple[tuple[object, ...], float | None, Any]:
        """What the client has yet to do, with how far it is; how many seconds it may stay there; what happens then."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            return ("reads", self._drained, unsent // STRIDE), patience.client, self.transport.abort
        if self._lingering:
            return ("hangs up",), LINGER_S, self.transport.abort
        answered = self.cycle is None or self.cycle.response_complete
        if self._phase is not Phase.NOTHING and not self._deaf and not self.flow.read_paused:
            if self._phase is Phase.BODY and answered:
                return ("stops sending", self._requests), patience.client, self.transport.close
            return ("sends", self._requests, self._received // STRIDE), patience.client, self._time_out
        if answered:
            return ("asks", self._requests), patience.idle, self.transport.close
        return (), None, None

    def _time_out(self) -> None:
        self._refuse(TIMEOUT, "the rest of the request did not come in time")
        if self._lingering:  # no need to: it is silent
            self.transport.close()

    # --- refusals -------------------------------------------------------------------------------------------------

    def _refuse(self, reason: Reason, message: str) -> None:
        """Answers the request that is being received, in place of the application; it is the connection's last."""
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        self._held.clear()
        if self._phase is not Phase.BODY:
            waits = self.cycle is not None and not self.cycle.response_complete
        elif self.pipeline:
            self.pipeline.popleft()
            waits = True
        elif self.cycle.response_started:
            self.linger()
            return
        else:
            waits = False
            self.cycle.disconnected = True  # to the application the client is gone
            self.cycle.message_event.set()
        failure = Failure.of(RejectedError(reason, message))
        reply = failure.openai() if self._phase is not Phase.NOTHING and _is_openai(self.url) else failure.plain()
        body = b"".join(reply.body)
        headers = [*reply.headers, (b"connection", b"close"), (b"content-length", b"%d" % len(body))]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self._refusal = b"".join([STATUS_LINE[reply.status], *lines, b"\r\n", body])
        if not waits:
            self._send_refusal(self._refusal)

    def _send_refusal(self, refusal: bytes) -> None:
        self.transport.write(refusal)
        self.linger()

    def linger(self) -> None:
        """Closes the connection when the client does, or soon.

        Were it closed while the client sends, the client would find it reset, and the last answer gone with it.
        """
        self._deaf = self._lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.hold(False)
        else:  # TLS
            self.transport.close()

    def hang_up(self) -> None:
        """Closes the connection after the answer to the last request."""
        if self._phase is Phase.BODY:
            self.linger()
        else:
            self.transport.close()


class _PoliteTransport:
    """What the last request of a connection gets as its transport."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.hang_up


def _is_openai(url: bytes) -> bool:
    return url.partition(b"?")[0] in (b"/v1/embeddings", b"/embeddings")


def _without_upgrade(data: bytes) -> bytes:
    """Hides an offer to change the protocol (Java's client offers HTTP/2): the parser would drop the body after it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest if UPGRADE.search(head) else data
