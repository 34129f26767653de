"""Which requests a server takes, before any work is done: permits, and a gate that is closed at the end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import OverloadedError
from ..queueing.runner import closed_error


@dataclass(eq=False, slots=True)
class _Waiter:
    """A call in line for permits."""

    missing: int
    """Permits it still needs."""
    granted: asyncio.Future[None]
    """Done once it has all of them."""
    collected: int = 0
    """Permits it has already."""


class Permits:
    """One permit for each input of the requests under way. Used from one event loop.

    A request takes its permits at once or is refused; an item of a stream waits for them. Neither starves the other:

    - those that waited hold at most half of all permits together, so a stream never takes the other half;
    - what is given back goes to the first in line until it has all it needs, so it waits for no later request.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: deque[_Waiter] = deque()
        self._share = -(-count // 2)
        self._shared = 0  # of the share: held by those that waited, and collected by those in line

    def take(self, count: int) -> Permit:
        """`count` permits, all or none, at once. Raises OverloadedError if there are fewer."""
        if count > self.free:
            raise OverloadedError(count - self.free)
        self.free -= count
        return Permit(self, count)

    async def wait(self, count: int) -> Permit:
        """`count` permits (or the half of all, if that is fewer), in the order of asking."""
        count = min(count, self._share)
        waiter = _Waiter(count, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._collect()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            self.give_back(waiter.collected, of_share=waiter.collected)
            raise
        return Permit(self, count, of_share=count)

    def give_back(self, count: int, *, of_share: int) -> None:
        """of_share: how many of them were waited for."""
        self.free += count
        self._shared -= of_share
        self._collect()

    def _collect(self) -> None:
        """Hands free permits to those in line, within their share."""
        while self._waiting:
            first = self._waiting[0]
            found = min(first.missing, self.free, self._share - self._shared)
            self.free -= found
            self._shared += found
            first.missing -= found
            first.collected += found
            if first.missing:
                return
            self._waiting.popleft()
            if not first.granted.done():  # it may have been cancelled in this moment: then it gives them back
                first.granted.set_result(None)


class Permit:
    """Permits that are held; given back where its `with` ends."""

    def __init__(self, permits: Permits, count: int, *, of_share: int = 0) -> None:
        self._permits = permits
        self._count = count
        self._of_share = of_share

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self._permits.give_back(self._count, of_share=self._of_share)
        self._count = self._of_share = 0


class Gate:
    """Requests under way; those that come after `close` are refused."""

    def __init__(self) -> None:
        self._inside = 0
        self._drained: asyncio.Future[None] | None = None  # there once the gate is closed

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Raises InferenceError once the gate is closed."""
        if self._drained is not None:
            raise closed_error()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if self._drained is not None and not self._inside:
                self._drained.set_result(None)

    async def close(self) -> None:
        """Waits for the requests under way; takes no other."""
        self._drained = self._drained or asyncio.get_running_loop().create_future()
        if self._inside:
            await self._drained
