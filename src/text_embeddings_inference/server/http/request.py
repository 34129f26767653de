"""A request on its way in: its head, and its body as far as it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping


class Request:
    """One request of a connection. Whoever answers it is cancelled when its client leaves."""

    __slots__ = (
        "_complete",
        "_discards",
        "_parts",
        "_waiting",
        "_wanted",
        "headers",
        "keep_alive",
        "method",
        "path",
        "unread",
    )

    def __init__(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        *,
        keep_alive: bool = True,
        wanted: Callable[[], None] = lambda: None,
    ) -> None:
        """headers: by name in lower case, the first of each, but `authorization`s that differ as a list; wanted: called
        when the next part of the body is waited for."""
        self.method = method
        self.path = path
        """Without the query, percent-decoded."""
        self.headers = headers
        self.keep_alive = keep_alive
        self.unread: int = 0
        """Bytes of the body that came and were not taken yet."""
        self._wanted = wanted
        self._parts: list[bytes] = []
        self._complete = False
        self._discards = False
        self._waiting: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes:
        """The value of a header, empty where it is absent; name: in lower case."""
        return self.headers.get(name, b"")

    def feed(self, data: bytes) -> None:
        """The next part of the body came."""
        if self._discards:
            return
        self._parts.append(data)
        self.unread += len(data)
        self._wake()

    def finish(self) -> None:
        """The body is complete."""
        self._complete = True
        self._wake()

    def discard(self) -> None:
        """The request was answered: what is still to come of its body is dropped."""
        self._discards = True
        self._parts.clear()
        self.unread = 0

    async def part(self) -> bytes:
        """What of the body came since the last call; waits for some of it. Empty at its end."""
        while not self._parts and not self._complete:
            self._waiting = asyncio.get_running_loop().create_future()
            self._wanted()
            await self._waiting
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.unread = 0
        return part

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
