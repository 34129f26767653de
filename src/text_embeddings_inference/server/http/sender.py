"""The sending half of a connection: answers go out no faster than their client reads, and not too slowly either."""

from __future__ import annotations

import asyncio
from collections import deque

from .memory_budget import LARGE, Reader, UnsentAnswers
from .timeouts import LOWEST_RATE

MOST_UNSENT = 1 << 15
"""Bytes of answers that wait in a connection before it counts as a slow reader's."""


class Sender:
    """Writes to the transport of one connection. reader: the connection, to be aborted where too much is unsent."""

    def __init__(self, transport: asyncio.Transport, reader: Reader, unsent: UnsentAnswers) -> None:
        transport.set_write_buffer_limits(MOST_UNSENT)
        self._transport = transport
        self._reader = reader
        self._unsent = unsent
        self._drained: asyncio.Future[None] | None = None
        """There while the client does not keep up."""
        self._written = 0
        """Bytes so far."""
        self._left = 0
        """Bytes of the answer that are not written yet."""
        self.catches = 0
        """How often a slow client has caught up."""
        self._slow_since: tuple[float, int] | None = None
        """When bytes were first seen unsent, and how many were taken until then."""

    @property
    def unsent(self) -> int:
        """Bytes that were written, and that the system has not taken yet."""
        return self._transport.get_write_buffer_size()

    async def send(self, head: bytes, body: deque[bytes]) -> None:
        """Writes an answer, and takes what was written from `body`. What is large counts from now on."""
        self._left = sum(map(len, body))
        if self._left >= LARGE:
            self._count()
        await self._keep_pace()
        first = body.popleft() if body else b""
        self._left -= len(first)
        if len(first) < MOST_UNSENT:
            self.write(head + first)
        else:  # no copy
            self.write(head)
            self.write(first)
        del first
        while body:
            await asyncio.sleep(0)  # other requests' turn
            await self._keep_pace()
            self._left -= len(body[0])
            self.write(body.popleft())
        self._count()

    def write(self, data: bytes) -> None:
        """Whether the client keeps up or not."""
        if not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    async def _keep_pace(self) -> None:
        while self._drained is not None:
            await self._drained

    def pause(self) -> None:
        """The client does not keep up."""
        self._drained = self._drained or asyncio.get_running_loop().create_future()
        self._count()

    def resume(self) -> None:
        """It has caught up."""
        self.catches += 1
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        self._count()

    def close(self) -> None:
        """The connection has ended."""
        self._left = 0
        self.resume()

    def _count(self) -> None:
        """What the client has yet to read counts, where it does not keep up or that is much."""
        if self._drained is not None or self._left >= LARGE:
            self._unsent.hold(self._reader, self.unsent + self._left)
        else:
            self._unsent.release(self._reader)

    def is_too_slow(self, now: float, limit: float | None) -> bool:
        """Whether the client has read at less than the lowest rate since `limit` seconds after it fell behind; to be
        asked about once a second."""
        unsent = self.unsent
        if not unsent:
            self._slow_since = None
            return False
        taken = self._written - unsent
        since, before = self._slow_since = self._slow_since or (now, taken)
        return limit is not None and taken - before < (now - since - limit) * LOWEST_RATE
