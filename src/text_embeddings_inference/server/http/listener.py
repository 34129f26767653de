"""A socket that listens, and its connections: accepted, counted, swept for slow clients, and let end."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from typing import Self

from ...errors import StartError
from ...telemetry.throttle import ErrorLog
from ..connections import PROBES, Connections, HeldDescriptors
from ..sockets import explained
from .connection import Application, Connection, Site
from .memory_budget import UnsentAnswers, trim
from .timeouts import HANDSHAKE_S, RunningClock, Timeouts

logger = logging.getLogger(__name__)

BACKLOG = 4096
STEP_S = 0.1
"""Between two looks at the clock: what is longer than twice that is a pause of the process."""
STEPS = 10
"""After so many of them, connections are looked at."""
READ_ROUNDS = 2
"""Of the event loop, in which what has come during a pause is read before a connection is ended for its silence."""
SWEPT_AT_ONCE = 500
"""Connections looked at before requests have their turn: about half a millisecond."""
ACCEPTED_AT_ONCE = PROBES // 8
"""Connections accepted before those accepted earlier are read from."""
GOODBYE_S = 1.0
"""Seconds that a client has to answer the end of a TLS connection; one that rests in a pool never does."""
NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
CLOSING_S = 0.005
"""After which the descriptor of a connection that has ended is free."""
NEVER_S = 1e6


class Listener:
    """Serves an application on one bound socket, as long as its `with` lasts."""

    def __init__(
        self,
        application: Application,
        bound: socket.socket,
        timeouts: Timeouts,
        *,
        connections: Connections,
        unsent: UnsentAnswers,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """connections: how many there may be, shared with other listeners or not; beyond them only probes are answered,
        on PROBES connections."""
        self._socket = bound
        self._timeouts = timeouts
        self._connections = connections
        self._tls = tls
        self._held = HeldDescriptors()
        self._time = RunningClock(clock, STEP_S)
        self._date = b""
        self._site = Site(application, unsent, lambda: self._date)
        self._opening: dict[Connection, tuple[asyncio.Task[object], float]] = {}
        """Connections that were accepted and are not open yet (TLS), and since when."""
        self._accepted: set[Connection] = set()
        """All that were accepted and have not ended."""
        self._beyond: dict[Connection, None] = {}
        """Those beyond the limit, oldest first."""
        self._ended = asyncio.Event()
        self._pauses = False
        """Whether nothing is accepted, for want of descriptors."""
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listens. Raises StartError."""
        try:
            self._socket.listen(BACKLOG)
        except OSError as error:  # another process bound the address too, and listened first
            raise StartError("Could not listen") from explained(error)
        self._socket.setblocking(False)
        self._date = formatdate(usegmt=True).encode()
        asyncio.get_running_loop().add_reader(self._socket, self._accept)
        self._ticking = asyncio.create_task(self._tick())
        return self

    def stop_accepting(self) -> None:
        """Closes the socket; connections stay."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        self._held.close()

    async def abort(self) -> None:
        """Ends the connections, whatever is going on in them."""
        for connection in list(self._site.connections):
            connection.abort()
        self._cancel_openings()

    async def __aexit__(self, *_: object) -> None:
        """Closes the socket and idle connections, and lets running requests end, unless they are aborted.

        Slow clients hold it up no longer than they may at any time.
        """
        self.stop_accepting()
        self._cancel_openings()
        for connection in list(self._site.connections):
            connection.shut_down()
        while self._accepted:
            self._ended.clear()
            await self._ended.wait()
        await asyncio.gather(*self._site.abandoned, return_exceptions=True)
        if self._ticking is not None:
            self._ticking.cancel()

    # --- accepting ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        self._held.refill()
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_FILES:
                    raise
                if not self._held.release():
                    self._make_way()
                    return
            else:
                # Whoever gets a held descriptor, or the one that should be held again, must not keep it for long.
                self._open(client, beyond=not self._held.all_there or not self._connections.enter())

    def _make_way(self) -> None:
        """No descriptor is left: nothing is accepted until one beyond the limit has ended."""
        self._pauses = True
        asyncio.get_running_loop().remove_reader(self._socket)
        self._end_beyond()

    def _resume(self) -> None:
        if self._pauses and self._socket.fileno() >= 0:
            self._pauses = False
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _open(self, client: socket.socket, *, beyond: bool) -> None:
        client.setblocking(False)
        connection = Connection(self._site, self._left, beyond_limit=beyond)
        self._accepted.add(connection)
        if beyond:
            if len(self._beyond) >= PROBES:
                self._end_beyond()
            self._beyond[connection] = None
        timeout = None if self._tls is None else NEVER_S  # `_look_around` ends those that take too long
        opening = asyncio.get_running_loop().connect_accepted_socket(
            lambda: connection,
            client,
            ssl=self._tls,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=None if self._tls is None else GOODBYE_S,
        )
        task = asyncio.create_task(opening)
        self._opening[connection] = task, self._time.now
        task.add_done_callback(partial(self._opened, connection, client))

    def _opened(self, connection: Connection, client: socket.socket, task: asyncio.Task[object]) -> None:
        del self._opening[connection]
        if task.cancelled() or task.exception() is not None:  # its TLS handshake took too long, or failed
            client.close()
            self._left(connection)

    def _end_beyond(self) -> None:
        """Ends the oldest connection beyond the limit that has sent no request, or that has if all have."""
        oldest = next(iter(self._beyond), None)
        if (found := next((one for one in self._beyond if not one.asks), oldest)) is not None:
            self._end(found)

    def _end(self, connection: Connection) -> None:
        self._beyond.pop(connection, None)
        if connection in self._site.connections:
            connection.abort()
        else:
            self._opening[connection][0].cancel()

    def _cancel_openings(self, before: float = math.inf) -> None:
        """Ends connections that were accepted before that time and are not open yet. uvloop would end one that has just
        opened without a word to it."""
        for connection, (opening, since) in list(self._opening.items()):
            if since <= before and connection not in self._site.connections:
                opening.cancel()

    def _left(self, connection: Connection) -> None:
        if connection not in self._accepted:
            return
        self._accepted.discard(connection)
        if connection.beyond_limit:
            self._beyond.pop(connection, None)
        else:
            self._connections.leave()
        self._ended.set()
        if self._pauses:
            asyncio.get_running_loop().call_later(CLOSING_S, self._resume)

    # --- once a second --------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Keeps the header `date` true, and ends the connections of clients that take too long."""
        errors = ErrorLog(logger)
        while True:
            for _ in range(STEPS):
                await asyncio.sleep(STEP_S)
                self._time.tick()
            try:
                await self._look_around()
            except Exception:  # the next tick may do better; without any, slow clients would stay for ever
                errors.exception("connections could not be looked at")

    async def _look_around(self) -> None:
        self._date = formatdate(usegmt=True).encode()
        self._held.refill()
        self._resume()
        if self._site.unsent.should_trim():
            await asyncio.to_thread(trim)
        for _ in range(READ_ROUNDS):
            await asyncio.sleep(0)
        now = self._time.now
        self._cancel_openings(before=now - HANDSHAKE_S)
        for number, connection in enumerate(list(self._site.connections), 1):
            connection.sweep(now, self._timeouts)
            if number % SWEPT_AT_ONCE == 0:
                await asyncio.sleep(0)
