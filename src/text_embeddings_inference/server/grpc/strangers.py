"""Connections whose clients have made no call that was let in: they may not keep others out."""

from __future__ import annotations

import asyncio
import time

from .sockets import address, disconnect, open_files, peers

LOOK_EVERY_S = 5.0
STRANGE_S = 5.0
"""Seconds in which the client of a new connection may show its key."""
CROWDED = 0.75
"""Of the connections there may be; with fewer, strangers are left alone."""


class Strangers:
    """Ends the connections of strangers while the port is crowded. grpcio tells of no connection before it has a call,
    so the sockets of the process are looked through."""

    def __init__(self, connections: int) -> None:
        """connections: that the port may have."""
        self._connections = connections
        self._known: set[str] = set()
        self._since: dict[str, float] = {}
        """When each stranger was seen first."""

    def know(self, peer: str) -> None:
        """A call of this client, as grpcio names it, was let in."""
        self._known.add(address(peer))

    async def watch(self, port: int) -> None:
        """Looks at the connections to our `port` now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            # A port that is not crowded is looked at only for the addresses to forget.
            if max(open_files(), len(self._known)) >= CROWDED * self._connections:
                known = set(self._known)
                found = await asyncio.to_thread(peers, port)
                self._known -= known - found
                if ended := self.due(found, time.monotonic()):
                    await asyncio.to_thread(disconnect, ended, port)

    def due(self, found: set[str], now: float) -> set[str]:
        """Those that must leave, of all connections there are."""
        self._since = {peer: self._since.get(peer, now) for peer in found - self._known}
        if len(found) < CROWDED * self._connections:
            return set()
        return {peer for peer, since in self._since.items() if now - since >= STRANGE_S}
