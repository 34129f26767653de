"""Where the stores of a plan lie, and which steps run one after another without waiting.

A stage is a run of steps that take each row by itself, or one step that does not. What lives within one stage is in a
thread's own memory, for the rows it works on; what lives longer is in the batch's, for all rows. Columns of memory are
used again when their store is read for the last time: in the batch's memory from stage to stage, for threads go through
a stage each at its own pace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from ..ops.native import Rows
from .steps import Step, Store

ALIGNMENT = 16
"""Floats: columns of memory begin at multiples of it, a cache line."""


class Kind(Enum):
    """Whose memory."""

    ARENA = 0
    LOCAL = 1
    POOLED = 2
    HIDDEN = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A store's memory."""

    kind: Kind
    """Whose it is."""
    offset: int
    """Floats of a row before it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps that run without waiting for other rows."""

    first: int
    """Number of its first step."""
    count: int
    """How many steps."""
    rows: Rows
    """What they take rows of."""
    rowwise: bool
    """Whether each takes rows by themselves; else it is one step that does not."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is."""

    stages: list[Stage]
    """In the order they run."""
    stores: dict[Store, Place]
    """Each store's memory; stores that take the same place share it."""
    widths: dict[tuple[Kind, Rows], int]
    """Floats of a row of each memory."""


def find_places(steps: Sequence[Step]) -> Places:
    """Places for the stores of all steps."""
    stages = find_stages(steps)
    stage_of = [number for number, stage in enumerate(stages) for _ in range(stage.count)]
    lives = _lives(steps)
    shared = _overwritten(steps, lives, stage_of)
    groups: dict[Store, list[Store]] = {}
    for store in lives:
        groups.setdefault(shared[store], []).append(store)
    spans: dict[tuple[Kind, Rows], list[_Span]] = {}
    pooled: dict[Store, Place] = {}
    for members in groups.values():
        begin, end = min(lives[s][0] for s in members), max(lives[s][1] for s in members)
        kind = _kind(members, stages[stage_of[begin]].rowwise and stage_of[begin] == stage_of[end])
        if kind is Kind.POOLED:
            pooled |= dict.fromkeys(members, Place(kind, 0))
            continue
        if kind is not Kind.LOCAL:
            begin, end = stage_of[begin], stage_of[end]
        # The caller may not want hidden states: then they are in the batch's memory.
        memory = Kind.LOCAL if kind is Kind.LOCAL else Kind.ARENA
        rows = Rows.TOKENS if kind is Kind.LOCAL else members[0].rows
        spans.setdefault((memory, rows), []).append(_Span(begin, end, members, kind))
    stores, widths = pooled, {}
    for memory_rows, of_memory in spans.items():
        widths[memory_rows] = _assign(of_memory)
        stores |= {store: Place(span.kind, span.offset) for span in of_memory for store in span.stores}
    return Places(stages, stores, widths)


def find_stages(steps: Sequence[Step]) -> list[Stage]:
    """Runs of steps that take each row by itself, and the other steps between them."""
    stages: list[Stage] = []
    for number, step in enumerate(steps):
        rows = step.out.store.rows
        last = stages[-1] if stages else None
        if step.is_rowwise and last and last.rowwise and last.rows is rows:
            stages[-1] = Stage(last.first, last.count + 1, rows, True)
        else:
            stages.append(Stage(number, 1, rows, step.is_rowwise))
    return stages


@dataclass(slots=True)
class _Span:
    """Stores in one place, from one step or stage to another."""

    begin: int
    end: int
    stores: list[Store]
    kind: Kind
    offset: int = 0

    @property
    def width(self) -> int:
        return -(-self.stores[0].floats // ALIGNMENT) * ALIGNMENT


def _lives(steps: Iterable[Step]) -> dict[Store, tuple[int, int]]:
    """The first and the last step that each store is used by."""
    lives: dict[Store, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for view in step.views:
            begin, _ = lives.get(view.store, (number, number))
            lives[view.store] = begin, number
    return lives


def _overwritten(
    steps: Sequence[Step], lives: dict[Store, tuple[int, int]], stage_of: Sequence[int]
) -> dict[Store, Store]:
    """For each store the one whose place it has: its own, or that of an input that is read for the last time."""
    shared = {store: store for store in lives}
    for number, step in enumerate(steps):
        out = step.out.store
        if lives[out][0] != number or not step.out.is_whole:
            continue
        for view in step.overwrites:
            before = view.store
            fits = view.is_whole and (before.width, before.rows, before.half) == (out.width, out.rows, out.half)
            readers = sum(one.store is before for one in step.views)
            if fits and lives[before][1] == number and readers == 1 and not before.output:
                shared[out] = shared[before]
                break
    return shared


def _kind(members: Iterable[Store], local: bool) -> Kind:
    outputs = {store.output for store in members} - {None}
    if outputs:
        [output] = outputs
        return Kind.POOLED if output == "pooled" else Kind.HIDDEN
    return Kind.LOCAL if local else Kind.ARENA


def _assign(spans: list[_Span]) -> int:
    """Gives each span the first columns that are free all its life; returns how many columns there are."""
    taken: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.begin, -span.width)):
        offset = 0
        for other in sorted(taken, key=lambda other: other.offset):
            if other.begin <= span.end and span.begin <= other.end and other.offset < offset + span.width:
                offset = max(offset, other.offset + other.width)
        span.offset = offset
        taken.append(span)
    return max(span.offset + span.width for span in spans)
