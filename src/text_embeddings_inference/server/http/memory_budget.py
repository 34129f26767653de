"""What requests may take in memory together, and how many connections there may be."""

from __future__ import annotations

import logging
import resource

from ...errors import OverloadedError

logger = logging.getLogger(__name__)

SPARE_FILES = 256
"""Open files that are not connections: sockets that listen, libraries, weights, and those of the gRPC server."""


class Room:
    """Bytes of all bodies whose requests are not answered yet. most: None for no limit."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self.used = 0

    def take(self, size: int) -> None:
        """Raises OverloadedError where so many bytes more are too many; a body alone always has room."""
        if self._most is not None and self.used and self.used + size > self._most:
            raise OverloadedError
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size


class Share:
    """What one request has taken of the room; given back where its `with` ends."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def take(self, size: int) -> None:
        """Raises OverloadedError."""
        self._room.take(size)
        self._size += size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.give_back(self._size)


def raise_file_limit(connections: int) -> int:
    """Lets the process open files enough for so many connections, as far as it may; for how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("at most %d connections: the process may open %d files (ulimit -n)", allowed - SPARE_FILES, hard)
    return max(1, allowed - SPARE_FILES)
