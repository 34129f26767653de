"""Which inputs run together, and when: a pure state machine. It knows tokens, lengths and ages; no clock, no I/O.

It never waits for a batch to fill. Whoever has an idle stream asks for the next batch and gets what has gathered
meanwhile: the entry that is due first, and around it those of like length, so that little padding is computed; where an
engine pads nothing, those that are due next.

Entries are due in the order they came in, but the inputs of one request one after another, as if each were sent when a
share of the engine could have run those before it: who sends a text alone does not wait for all of a large request.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, NamedTuple, Protocol, TypeVar

SPARE_PADDING = 32
"""Padding that a batch may have, in tokens: about what it costs to run one batch more (docs/log.md)."""
SHARE = 8
"""A large request is sure of one part in so many of the engine (docs/log.md); of more where nothing else waits."""


class Entry(Protocol):
    """One input that waits."""

    @property
    def length(self) -> int:
        """In tokens."""
        ...

    @property
    def ahead(self) -> int:
        """Tokens of its request that were queued before it and still wait."""
        ...

    @property
    def cancelled(self) -> bool:
        """It need not run any more."""
        ...


E = TypeVar("E", bound=Entry)

Cost = Callable[[int, int, int], int]
"""(longest, count, tokens) -> tokens computed; see `engines.base.Engine.cost`."""


class _Waiting(NamedTuple, Generic[E]):
    length: int
    number: int
    """How many came before it."""
    entry: E


class Scheduler(Generic[E]):
    """The queue in front of engines, which may differ in what a batch costs them.

    Every batch holds the entry that is due first, so nothing starves: an entry waits at most for those due before it.
    Time is counted in tokens taken: an entry is due when `SHARE` times as many were taken since it came as its request
    has in the queue ahead of it.
    """

    def __init__(self, *, max_entries: int | None = None) -> None:
        """max_entries: of a batch, None or 0 for no limit."""
        self._max_entries = max_entries
        self._waiting: list[_Waiting[E]] = []  # by length, then number
        self._due: list[tuple[int, int, int]] = []  # heap of (due, number, length): those, and some that were taken
        self._number = 0
        self._taken_tokens = 0
        self.waiting_tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> E | None:
        """The entry that has waited longest; takes a look at all of them."""
        return min(self._waiting, key=lambda waiting: waiting.number).entry if self._waiting else None

    def add(self, entry: E) -> None:
        """Queues an entry."""
        waiting = _Waiting(entry.length, self._number, entry)
        insort(self._waiting, waiting)  # no two have the same number: entries are never compared
        heappush(self._due, (self._taken_tokens + SHARE * entry.ahead, waiting.number, waiting.length))
        self._number += 1
        self.waiting_tokens += entry.length

    def drop_cancelled(self) -> list[E]:
        """Takes out the entries that were cancelled."""
        dropped = [waiting.entry for waiting in self._waiting if waiting.entry.cancelled]
        if dropped:
            self._waiting = [waiting for waiting in self._waiting if not waiting.entry.cancelled]
            self.waiting_tokens -= sum(entry.length for entry in dropped)
        return dropped

    def clear(self) -> list[E]:
        """Takes out all entries, by length."""
        entries = [waiting.entry for waiting in self._waiting]
        self._waiting.clear()
        self._due.clear()
        self.waiting_tokens = 0
        return entries

    def next_batch(self, cost: Cost, max_tokens: int, streams: int = 1) -> list[E]:
        """The entries to run together on an engine; empty if nothing waits.

        cost: of the engine; max_tokens: that it computes in a batch (a longer entry runs alone); streams: how many
        batches could start now: what waits is shared out between them.
        """
        if not self._waiting:
            return []
        share = -(-self.waiting_tokens // streams)
        if _pads_nothing(cost):
            batch = self._take_due(min(share, max_tokens))
        else:
            low, high = self._widen(self._first_due(), share, cost, max_tokens)
            batch = [waiting.entry for waiting in self._waiting[low:high]]
            del self._waiting[low:high]
        tokens = sum(entry.length for entry in batch)
        self.waiting_tokens -= tokens
        self._taken_tokens += tokens
        if not self._waiting:
            self._due.clear()
        return batch

    def _take_due(self, most_tokens: int) -> list[E]:
        """Takes out the entries that are due, in that order, as long as they fit."""
        batch: list[E] = []
        tokens = 0
        while self._waiting and len(batch) < (self._max_entries or math.inf):
            place = self._first_due()
            tokens += self._waiting[place].length
            if batch and tokens > most_tokens:
                break
            batch.append(self._waiting.pop(place).entry)
        return batch

    def _first_due(self) -> int:
        """The place in `_waiting` of the entry that is due first."""
        while True:
            _, number, length = self._due[0]
            place = bisect_left(self._waiting, (length, number))
            if place < len(self._waiting) and self._waiting[place].number == number:
                return place
            heappop(self._due)  # it was taken along with another, or dropped

    def _widen(self, start: int, share: int, cost: Cost, max_tokens: int) -> tuple[int, int]:
        """The window of `_waiting` around `start`, grown by the neighbour that costs less padding, while it pays.

        share: most tokens, padding not counted.
        """
        low, high, tokens = start, start + 1, self._waiting[start].length
        while high - low < (self._max_entries or len(self._waiting)):
            grown = [
                self._with(neighbour, min(low, neighbour), max(high, neighbour + 1), tokens, cost)
                for neighbour in (low - 1, high)
                if 0 <= neighbour < len(self._waiting)
            ]
            if not grown:
                break
            padding, total, first, last = min(grown)
            if padding > SPARE_PADDING or total > share or total + padding > max_tokens:
                break
            low, high, tokens = first, last, total
        return low, high

    def _with(self, neighbour: int, low: int, high: int, tokens: int, cost: Cost) -> tuple[int, int, int, int]:
        """(padding, tokens, low, high) of the window with one neighbour more."""
        total = tokens + self._waiting[neighbour].length
        padding = cost(self._waiting[high - 1].length, high - low, total) - total
        return padding, total, low, high


def _pads_nothing(cost: Cost) -> bool:
    """Whether the engine packs sequences of different lengths, so that nothing is gained by like lengths."""
    return cost(2, 2, 3) == 3
