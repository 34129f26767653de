"""What a plan is made of: steps that read and write columns of stores (csrc/tei.h has what C sees of them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

from ..ops.native import Rows


class Op(IntEnum):
    """What a step computes, see `tei_op`; all up to EXPERTS take each row by itself."""

    EMBED = 0
    LINEAR = 1
    UNARY = 2
    BINARY = 3
    REDUCE = 4
    KEEP_LARGEST = 5
    LAYER_NORM = 6
    RMS_NORM = 7
    L2_NORM = 8
    COPY = 9
    ROPE = 10
    EXPERTS = 11
    SHIFT = 12
    ATTENTION = 13
    DISENTANGLED = 14
    POOL = 15


UNARY = ("identity", "gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid", "sqrt", "exp", "log1p", "round")
ROUGH = {"gelu": len(UNARY)}
"""Functions that a product may end with to less precision, where its result is rounded to 16 bits or fewer."""
BINARY = ("add", "sub", "mul", "div")
REDUCE = ("sum", "mean", "max", "softmax")
SPLADE = ("splade", "splade_log1p", "splade_sum", "splade_sum_log1p")
POOL = ("cls", "last_token", "mean", "max", "mean_sqrt_len", "weighted_mean", *SPLADE)
IDS = ("input_ids", "type_ids", "positions")
"""Kinds by their numbers in C; names as in `spec.Ops` and `Pooling`."""

KINDS = {
    Op.EMBED: IDS,
    Op.LINEAR: UNARY,
    Op.EXPERTS: UNARY,
    Op.UNARY: UNARY,
    Op.BINARY: BINARY,
    Op.REDUCE: REDUCE,
    Op.POOL: POOL,
}
"""What the kind of a step means, by its op."""


@dataclass(eq=False, slots=True)
class Store:
    """A value's memory, before it has a place."""

    rows: Rows
    """What it has a row for."""
    width: int
    """Floats of a row."""
    output: str | None = None
    """`pooled` or `hidden`: it is the caller's array."""
    half: bool = False
    """Whether it holds bfloat16 numbers, for kernels that would round to them anyway; else float32."""

    @property
    def floats(self) -> int:
        """Floats of memory that a row takes; of bfloat16 numbers whole cache lines."""
        return -(-self.width // 32) * 16 if self.half else self.width


@dataclass(frozen=True, slots=True)
class View:
    """Some columns of a store."""

    store: Store
    """Where they are."""
    column: int
    """The first one."""
    width: int
    """How many."""

    @property
    def is_whole(self) -> bool:
        """Whether it is all columns of its store."""
        return self.column == 0 and self.width == self.store.width

    def part(self, begin: int, width: int) -> View:
        """Some of these columns."""
        return View(self.store, self.column + begin, width)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of a product, one below the other where several products of one input were joined."""

    matrices: tuple[NDArray[Any], ...]
    """Each `[O, I]`, as it is stored."""
    biases: tuple[NDArray[Any] | None, ...]
    """Of each matrix, `[O]`; None: 0."""

    @property
    def outputs(self) -> int:
        """`O` of all together."""
        return sum(len(matrix) for matrix in self.matrices)


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    """The weights of a mixture of experts."""

    pairs: tuple[tuple[Weights, Weights], ...]
    """Of each expert, `[I, D]` and `[D, I]`."""

    @property
    def all(self) -> tuple[Weights, ...]:
        """One after another."""
        return tuple(weights for pair in self.pairs for weights in pair)

    @property
    def matrices(self) -> tuple[NDArray[Any], ...]:
        """All of them."""
        return tuple(matrix for weights in self.all for matrix in weights.matrices)


@dataclass(eq=False, slots=True)
class Step:
    """One step: `out` from `x`, `y` and `z`; fields that an op does not use stay as they are."""

    op: Op
    """What it computes."""
    out: View
    """Where the result goes."""
    x: View | None = None
    """First input; of attention the queries."""
    y: View | None = None
    """Second input: what is added, or keys, or gates."""
    z: View | None = None
    """Third input: what a product is multiplied with, or values."""
    kind: int = 0
    """Which function, see `KINDS`."""
    constants: tuple[Any, ...] = ()
    """Arrays, or the `Weights` of a product, or `Experts`; None for one that is absent."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Other fields of `tei_step`, by name."""
    for_hidden: bool = False
    """Whether only hidden states need it."""

    @property
    def weights(self) -> tuple[Weights, ...]:
        """Those that it multiplies with."""
        first = self.constants[0] if self.constants else None
        if isinstance(first, Weights):
            return (first,)
        return first.all if isinstance(first, Experts) else ()

    @property
    def is_rowwise(self) -> bool:
        """Whether it takes each row by itself."""
        return self.op <= Op.EXPERTS

    @property
    def views(self) -> tuple[View, ...]:
        """All columns that it reads or writes, the result first."""
        return tuple(view for view in (self.out, self.x, self.y, self.z) if view is not None)

    @property
    def overwrites(self) -> tuple[View, ...]:
        """Inputs whose place the result may take: they are read where it is written, and nowhere else."""
        same_place = {Op.LINEAR: (self.y, self.z), Op.EMBED: (self.y,), Op.BINARY: (self.x, self.y)}
        same_place |= dict.fromkeys((Op.UNARY, Op.LAYER_NORM, Op.RMS_NORM, Op.L2_NORM, Op.ROPE), (self.x,))
        return tuple(view for view in same_place.get(self.op, ()) if view is not None)

    def __str__(self) -> str:
        inputs = ", ".join(str(view.width) for view in self.views[1:])
        kind = f" {KINDS[self.op][self.kind]}" if self.op in KINDS else ""
        return f"{self.op.name.lower()}{kind}: {inputs or 'ids'} -> {self.out.width}"
