"""A model's plan: its steps and buffers as C reads them, recorded once from the model file."""

from __future__ import annotations

import ctypes as c
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..ops.native import Node, Rows
from .formats import EXACT, Formats
from .fuse import make_steps
from .halves import mark_halves
from .library import NUMBERS, STEP_NUMBERS, CBuffer, CMatrix, CPlan, CStage, CStep, CView, Level
from .pack import Packer
from .packs import Packs, PlanPack
from .places import Kind, Places, find_places
from .steps import IDS, ROUGH, UNARY, Experts, Op, Step, Store, View, Weights

ROWS = {Rows.TOKENS: 0, Rows.SEQUENCES: 1}


class Plan:
    """What runs for each batch. The arrays it points to are kept by it."""

    def __init__(
        self,
        level: Level,
        results: tuple[Node, Node | None],
        max_length: int,
        formats: Formats,
        threads: int = 1,
        packs: Packs | None = None,
        chosen: Sequence[str] | None = None,
    ) -> None:
        """results: pooled, and hidden states if there are any; max_length: tokens of the longest sequence; threads: to
        pack weights with; packs: where packed weights are kept, if they are; chosen: the format of each product, None
        for those of the kept weights, or what `formats` says.

        Raises UnsupportedError where a step does not take what the model gives it."""
        self.steps, self.ropes = make_steps(*results, max_length)
        self.width = results[0].width
        """Of the pooled vectors."""
        self._half = formats.half
        self._packer = Packer(level)
        products = [step for step in self.steps if step.weights]
        key = f"{formats.dtype} {formats.most_loss}"
        folder = packs and packs.folder
        self._pack = PlanPack(packs, folder, level, key, products, threads) if packs and folder else None
        found = self._pack.find(self._packer) if self._pack and chosen is None else None
        self.formats = found or dict(zip(products, chosen or map(formats, products), strict=True))
        """Of each product, in their order."""
        self.is_kept = found is not None
        """Whether these are packed weights that were kept."""
        if formats.half:
            mark_halves(self.steps, self.formats)
        self.places = find_places(self.steps)
        self._kept: list[Any] = []
        numbers = {store: number for number, store in enumerate(self.places.stores)}
        buffers = _array(CBuffer, [_buffer(store, place) for store, place in self.places.stores.items()])
        stages = [CStage(s.first, s.count, s.rowwise, ROWS[s.rows]) for s in self.places.stages]
        steps = _array(CStep, [self._lower(step, numbers) for step in self.steps])
        if not found:
            self._packer.pack(threads, packs.release if packs else lambda: None)
        widths = self.places.widths
        self.raw = CPlan(steps, _array(CStage, stages), buffers, len(self.steps), len(stages), len(numbers))
        self.raw.widths[:] = [widths.get((Kind.ARENA, rows), 0) for rows in (Rows.TOKENS, Rows.SEQUENCES)]
        self.raw.local_width = widths.get((Kind.LOCAL, Rows.TOKENS), 0)

    def keep(self) -> None:
        """Keeps the packed weights for the next start, if they are to be kept and were not before."""
        if self._pack and not self.is_kept:
            self._pack.keep(self._packer, self.formats)

    def close(self) -> None:
        """Gives back the weights; nothing may run."""
        if self._pack:
            self._pack.wait()
        self._packer.close()

    @property
    def table_rows(self) -> dict[str, int]:
        """Rows of the smallest table that each kind of ids (`steps.IDS`) is looked up in; rotations are by position."""
        rows: dict[str, int] = {}
        for step in self.steps:
            kind = IDS[step.kind] if step.op is Op.EMBED else "positions" if step.op is Op.ROPE else None
            if kind and step.constants:
                rows[kind] = min(rows.get(kind, len(step.constants[0])), len(step.constants[0]))
        return rows

    def __str__(self) -> str:
        return f"{self.summary}\n{describe(self.steps, self.places, self.formats)}"

    @property
    def summary(self) -> str:
        """In a line: how many steps there are, in which formats products are computed, and what a batch takes."""
        formats = Counter(self.formats.values())
        products = ", ".join(f"{count} in {name}" for name, count in formats.most_common())
        token = 4 * self.places.widths.get((Kind.ARENA, Rows.TOKENS), 0)
        return f"{summarize(self.steps, self.places)}: {products}; {token / 1000:.3g} kB for each token of a batch"

    def _lower(self, step: Step, numbers: dict[Store, int]) -> CStep:
        absent = CView(-1, 0, 0)
        views = [_view(view, numbers) if view else absent for view in (step.out, step.x, step.y, step.z)]
        rough = self.formats.get(step, EXACT[0]) not in EXACT and ROUGH.get(UNARY[step.kind])
        raw = CStep(op=step.op, kind=rough or step.kind, half=self._half, for_hidden=step.for_hidden)
        raw.out, raw.x, raw.y, raw.z = views
        for name, number in step.numbers.items():
            setattr(raw, name, int(number) if name in STEP_NUMBERS else number)
        for name, constant in zip("abc", step.constants, strict=False):
            setattr(raw, name, self._address(constant, step))
        if step.op is Op.EMBED:
            raw.table = NUMBERS[step.constants[0].dtype]
        return raw

    def _address(self, constant: NDArray[Any] | Weights | Experts | None, step: Step) -> int | None:
        if constant is None:
            return None
        if isinstance(constant, Weights):
            matrix: CMatrix = self._packer.matrix(constant, self.formats[step])
            return c.addressof(matrix)
        if isinstance(constant, Experts):
            pointers = [self._address(weights, step) for weights in constant.all]
            self._kept.append(_array(c.c_void_p, pointers))
            return c.addressof(self._kept[-1])
        self._kept.append(constant)
        return constant.ctypes.data


def summarize(steps: Sequence[Step], places: Places) -> str:
    """How many steps and stages there are."""
    products = sum(bool(step.weights) for step in steps)
    return f"{len(steps)} steps in {len(places.stages)} stages, {products} of them products"


def describe(steps: Sequence[Step], places: Places, formats: Mapping[Step, str]) -> str:
    """The plan to be read: a line for each step, stage by stage, with the format of each product that has one."""
    lines = []
    for number, stage in enumerate(places.stages):
        lines.append(f"stage {number}, by {'rows' if stage.rowwise else 'sequences'} of {stage.rows.value}")
        for step in steps[stage.first : stage.first + stage.count]:
            format_ = f", {formats[step]}" if step in formats else ""
            lines.append(f"  {step}{format_}{', for hidden states' if step.for_hidden else ''}")
    return "\n".join(lines)


def _buffer(store: Store, place: Any) -> CBuffer:
    return CBuffer(place.kind.value, ROWS[store.rows], store.floats, place.offset, store.half)


def _view(view: View, numbers: dict[Store, int]) -> CView:
    return CView(numbers[view.store], view.column, view.width)


def _array(of: Any, items: list[Any]) -> Any:
    return (of * len(items))(*items)
