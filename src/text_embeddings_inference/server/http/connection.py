"""One HTTP/1.1 connection, safe against clients that send or read too much, too slowly, or not HTTP at all.

- Requests are answered one after another. Those that a client sends without waiting for answers are parsed only as
  fast as they are answered.
- Whoever stops in the middle of a request or of an answer is not waited for for ever (408): `Connection.sweep`.
- A refusal comes after the answers to earlier requests, and reaches a client that is still sending.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from .errors import INTERNAL, NO_CONNECTION, TIMEOUT, Failure, RejectedError
from .memory_budget import UnsentAnswers
from .parser import Parser, Phase
from .request import Request
from .response import Reply
from .sender import Sender
from .timeouts import LINGER_S, STRIDE, Timeouts

logger = logging.getLogger(__name__)

SLICE = 1 << 14
"""Bytes that are parsed at a time: so many small requests wait in one connection's queue at most."""
MOST_UNREAD = 1 << 16
"""Bytes of a body that are received before somebody asks for them."""


class Application(Protocol):
    """What answers requests."""

    async def __call__(self, request: Request) -> Reply:
        """The answer; errors of all kinds are answered too."""

    def refuse(self, path: str, failure: Failure) -> Reply:
        """The answer to a request for `path` that fails before it gets here."""

    def is_probe(self, request: Request) -> bool:
        """Whether it is answered though there are too many connections."""


class Site:
    """What the connections of one listener share."""

    def __init__(self, application: Application, unsent: UnsentAnswers, date: Callable[[], bytes]) -> None:
        """date: the value of the header of that name."""
        self.application = application
        self.unsent = unsent
        self.date = date
        self.connections: set[Connection] = set()
        """Those that are open: what comes before that, TLS, is over."""
        self.abandoned: set[asyncio.Task[None]] = set()
        """Tasks whose clients have left, and that are about to end."""

    async def reply(self, request: Request) -> Reply:
        """What the application answers, whatever happens in it."""
        try:
            return await self.application(request)
        except Exception as error:
            logger.error("%s failed: %s", request.path, error, exc_info=error)
            return self.application.refuse(request.path, Failure(*INTERNAL, "internal error"))


class Connection(asyncio.Protocol):
    """One connection. on_lost: called when it has ended; beyond_limit: only probes are answered, the first of them."""

    def __init__(self, site: Site, on_lost: Callable[[Connection], None], *, beyond_limit: bool = False) -> None:
        self._site = site
        self._on_lost = on_lost
        self.beyond_limit = beyond_limit
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(self._on_request, self._on_wanted)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # there before anything else is called
        self._sender: Sender = None  # type: ignore[assignment]
        self._queue: deque[Request] = deque()
        """Requests that wait for the answers before theirs."""
        self._current: Request | None = None
        """The request that is being answered."""
        self._task: asyncio.Task[None] | None = None
        self._answering = False
        """Whether the answer to `_current` has begun to go out."""
        self._held = bytearray()
        """Received and not parsed yet, because requests before it wait for their turn."""
        self._discarding = False
        """What is received is dropped: there was a fault, or the connection is about to end."""
        self._lingering = False
        self._refusal: bytes | None = None
        """To be sent once the requests before the refused one have been answered."""
        self._reads = True
        self._received = 0
        """Bytes so far."""
        self._continues = False
        """Whether the client waits for a word before it sends its body."""
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0

    @property
    def asks(self) -> bool:
        """Whether a request has come, at least its head."""
        return self._parser.request is not None

    # --- called by the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sender = Sender(self._transport, self, self._site.unsent)
        self._site.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._site.connections.discard(self)
        self._discarding = True
        self._abandon()
        self._sender.close()
        self._queue.clear()
        self._parser.close()
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._received += len(data)
        if len(data) <= SLICE and not self._held and not self._queue:
            self._parse(data)
        else:
            self._held += data
            self._parse_held()
        self._pace()

    def pause_writing(self) -> None:
        self._sender.pause()

    def resume_writing(self) -> None:
        self._sender.resume()

    # --- receiving ------------------------------------------------------------------------------------------------

    def _parse_held(self) -> None:
        """Parses what was held back, until a request has to wait for the answer to the one before it."""
        while self._held and not self._queue and not self._discarding:
            part = bytes(self._held[:SLICE])
            del self._held[:SLICE]
            self._parse(part)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except RejectedError as error:
            self._refuse(error)

    def _pace(self) -> None:
        """Receives no faster than what was received is taken."""
        request = self._parser.request
        reads = not self._held and (request is None or request.unread < MOST_UNREAD)
        if reads is not self._reads and not self._transport.is_closing():
            self._reads = reads
            (self._transport.resume_reading if reads else self._transport.pause_reading)()

    def _on_request(self, request: Request) -> None:
        if request.header(b"expect").lower() == b"100-continue":
            self._continues = True
            request.keep_alive = False  # refused, it may be followed by its body or by another request: who can tell?
        if self.beyond_limit:
            request.keep_alive = False
        if self._current is None:
            self._begin(request)
        else:
            self._queue.append(request)

    def _on_wanted(self) -> None:
        if self._continues:
            self._continues = False
            self._sender.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._pace()

    # --- answering ------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self._current = request
        self._task = self._loop.create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        site = self._site
        if self.beyond_limit and not site.application.is_probe(request):
            problem = "there are as many connections as may be (--max-connections)"
            reply = site.application.refuse(request.path, Failure(*NO_CONNECTION, problem))
        else:
            reply = await site.reply(request)
        head = reply.head(site.date(), close=not request.keep_alive)
        self._answering, self._continues = True, False
        body: deque[bytes] = deque(() if request.method == "HEAD" else reply.body)
        del reply  # what has been sent is let go of
        await self._sender.send(head, body)
        self._complete(request)

    def _complete(self, request: Request) -> None:
        """The answer is written: the next request's turn."""
        self._current, self._task, self._answering = None, None, False
        request.discard()
        if self._transport.is_closing() or self._lingering:
            return
        if not request.keep_alive:
            self._hang_up(request)
        elif self._queue:
            self._begin(self._queue.popleft())
        elif self._refusal is not None:
            self._sender.write(self._refusal)
            self._linger()
        if self._held:
            self._parse_held()
        self._pace()

    def _abandon(self) -> None:
        """Nobody will read the answer to the current request."""
        if self._task is not None and self._current is not None:
            self._task.cancel()
            self._site.abandoned.add(self._task)
            self._task.add_done_callback(self._site.abandoned.discard)
            self._current.discard()
        self._current, self._task = None, None

    # --- ending ---------------------------------------------------------------------------------------------------

    def _refuse(self, error: RejectedError) -> None:
        """Answers the request that is being received, in place of the application; it is the connection's last."""
        if self._discarding or self._transport.is_closing():
            return
        self._discarding = True
        self._held.clear()
        received = self._parser.request if self._parser.phase is Phase.BODY else None
        if received is not None and received is self._current and not self._answering:
            self._abandon()
        elif self._queue and received is self._queue[-1]:
            self._queue.pop()
        elif received is not None:  # it has its answer already
            self._linger()
            return
        path = self._parser.path() if self._parser.phase is not Phase.NOTHING else ""
        reply = self._site.application.refuse(path, Failure.of(error))
        self._refusal = reply.head(self._site.date(), close=True) + b"".join(reply.body)
        if self._current is None:
            self._sender.write(self._refusal)
            self._linger()

    def _linger(self) -> None:
        """Closes the connection when the client does, or soon.

        Were it closed while the client sends, the client would find it reset, and the last answer gone with it.
        """
        self._discarding = self._lingering = True
        self._held.clear()
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._pace()
        else:  # TLS
            self._transport.close()

    def _hang_up(self, request: Request) -> None:
        """Closes the connection after the answer to its last request."""
        if self._parser.phase is Phase.BODY and self._parser.request is request:
            self._linger()
        else:
            self._discarding = True
            self._transport.close()

    def shut_down(self) -> None:
        """Closes the connection, after the answers to the requests that have begun."""
        last = self._queue[-1] if self._queue else self._current
        if last is None:
            self._transport.close()
        else:
            last.keep_alive = False

    def abort(self) -> None:
        """Ends the connection at once, whatever is going on in it."""
        self._transport.abort()

    # --- slow clients ---------------------------------------------------------------------------------------------

    def sweep(self, now: float, timeouts: Timeouts) -> None:
        """Ends the connection if its client has kept us waiting for too long; to be called about once a second.

        Nothing is noted per request: a sweep that finds the connection as the last one left it lets the time run on.
        """
        if self._sender.is_too_slow(now, timeouts.client):
            self._transport.abort()
            return
        stage, limit, end = self._stage(timeouts)
        if stage != self._seen:
            self._seen, self._seen_at = stage, now
        elif limit is not None and now - self._seen_at >= limit:
            end()

    def _stage(self, timeouts: Timeouts) -> tuple[tuple[object, ...], float | None, Callable[[], object]]:
        """What the client has yet to do, with how far it is; how many seconds it may stay there; what happens then."""
        if unsent := self._sender.unsent:
            return ("reads", self._sender.catches, unsent // STRIDE), timeouts.client, self._transport.abort
        if self._lingering:
            return ("hangs up",), LINGER_S, self._transport.abort
        parser = self._parser
        if parser.phase is not Phase.NOTHING and not self._discarding and self._reads:
            if parser.phase is Phase.BODY and parser.request not in (self._current, *self._queue):
                return ("stops sending", parser.requests), timeouts.client, self._transport.close
            return ("sends", parser.requests, self._received // STRIDE), timeouts.client, self._time_out
        if self._current is None:
            limit = LINGER_S if self.beyond_limit else timeouts.idle
            return ("asks", parser.requests), limit, self._transport.close
        return (), None, self._transport.abort

    def _time_out(self) -> None:
        self._refuse(RejectedError(TIMEOUT, "the rest of the request did not come in time"))
        if self._lingering:  # no need to: it is silent
            self._transport.close()
