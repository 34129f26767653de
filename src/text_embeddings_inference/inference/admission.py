"""Permits: what a server lets in is known before any work is done for it."""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import OverloadedError


class Permits:
    """One permit for each input in the house. Used from one event loop."""

    def __init__(self, count: int) -> None:
        self.free = count
        self._count = count
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, count: int) -> Permit:
        """`count` permits, all or none, at once. Raises OverloadedError if there are fewer."""
        if count > self.free:
            raise OverloadedError
        self.free -= count
        return Permit(self, count)

    async def wait(self, count: int) -> Permit:
        """`count` permits (or all there are, if that is fewer), in the order of asking."""
        count = min(count, self._count)
        if not self._waiting and count <= self.free:
            return self.take(count)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(count)  # granted and cancelled in the same moment
            else:
                self._waiting.remove((count, turn))
                self.give_back(0)  # whoever stood behind may fit
            raise
        return Permit(self, count)

    def give_back(self, count: int) -> None:
        """Those who wait come first."""
        self.free += count
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, turn = self._waiting.popleft()
            self.free -= wanted
            turn.set_result(None)


class Permit:
    """Permits that are held; given back where its `with` ends."""

    def __init__(self, permits: Permits, count: int) -> None:
        self._permits = permits
        self._count = count

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self._permits.give_back(self._count)
        self._count = 0
