"""What requests and answers may take in memory together."""

from __future__ import annotations

import ctypes
from typing import Protocol

from ...errors import OverloadedError

LARGE = 1 << 20
"""Bytes of an answer that is written alone, and counts as unsent even if its client keeps up."""
KEPT = 1 << 24
"""Bytes of answers whose memory the C library may keep for the next ones."""


class MemoryBudget:
    """Bytes of all bodies whose requests are not answered yet. limit: None for none."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Raises OverloadedError where so many bytes more are too many; a body alone is always taken."""
        if self._limit is not None and self.used and self.used + size > self._limit:
            raise OverloadedError
        self.used += size

    def give_back(self, size: int) -> None:
        """So many of the bytes taken are free again."""
        self.used -= size


class Share:
    """What one request has taken of the budget; given back where its `with` ends."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def take(self, size: int) -> None:
        """Raises OverloadedError as the budget does."""
        self._budget.take(size)
        self._size += size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._size)


class Reader(Protocol):
    """A connection whose client has an answer to read."""

    def abort(self) -> None:
        """Ends the connection at once."""


class UnsentAnswers:
    """Bytes of answers that clients have yet to read, over all connections. limit: None for none.

    Where they are too many, the connections whose clients have read nothing for longest are ended, so that slow
    readers do not take the place of others.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._sizes: dict[Reader, int] = {}
        self._most: dict[Reader, int] = {}
        """Of those that are held: the most they have been."""
        self._freed = 0
        """Bytes that were let go of and perhaps are still the C library's."""
        self._freed_before = 0
        """The same, when it was last asked for."""
        self.used = 0

    def hold(self, reader: Reader, size: int) -> None:
        """A client does not keep up; size: bytes of its answer that are left."""
        self.used += size - self._sizes.pop(reader, 0)
        self._sizes[reader] = size  # the last of all
        self._most[reader] = max(size, self._most.get(reader, 0))
        while self._limit is not None and self.used > self._limit and len(self._sizes) > 1:
            slowest = next(iter(self._sizes))
            self.release(slowest)
            slowest.abort()

    def release(self, reader: Reader) -> None:
        """The client has caught up, or left."""
        self.used -= self._sizes.pop(reader, 0)
        self._freed += self._most.pop(reader, 0)

    def should_trim(self) -> bool:
        """Whether much was let go of, and nothing since the last call; to be asked about once a second."""
        quiet, self._freed_before = self._freed == self._freed_before, self._freed
        if self._freed < KEPT or not quiet:
            return False
        self._freed = self._freed_before = 0
        return True


def trim() -> None:
    """Gives free memory back to the system. The pieces of answers are too small for the C library to do so itself.

    It takes some milliseconds, without the GIL.
    """
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc's
        malloc_trim(0)
