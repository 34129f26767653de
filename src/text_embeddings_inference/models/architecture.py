"""What a model file says of its architecture: one value, `ARCHITECTURE`, at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ..nn.layers import TokenWise
from ..nn.parameters import Parameters, Table
from ..ops.spec import Inputs, Layout, Ops, Value


class Args(Protocol):
    """The keys of config.json that a model file reads, a frozen `msgspec.Struct`; these two every model has."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...


A = TypeVar("A", bound=Args)
M = TypeVar("M", bound=Callable[[Ops, Inputs], Value])
Head = Callable[[Ops, Value, Layout], Value]
"""`[*, D]` -> logits `[B, labels]`."""


def computed(args: Args) -> None:
    """`Architecture.positions` of models that compute positions or distances (rotary, ALiBi, buckets): without end."""


def table(args: Args) -> int:
    """`Architecture.positions` of models with a table of positions whose first row is the first token's."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(Generic[A, M]):
    """All that the rest of the package must know of an architecture."""

    args: type[A]
    """The keys of config.json that are read. A value that is not supported fails when it is converted."""
    model: Callable[[A, Parameters], M]
    """Makes the model of its parameters: token ids `[*]` -> hidden states `[*, D]`."""
    tensors: Table
    """From the names of the checkpoint's tensors to those of the model's parameters."""
    positions: Callable[[A], int | None]
    """The row of a text's first token in the model's table of positions, which limits the length of texts; None for a
    model without a table."""
    prefixes: tuple[str, ...] = ()
    """What the names of tensors may begin with."""
    towers: tuple[str, ...] = ()
    """What the names of tensors begin with, before any prefix, that belong to parts for other things than texts: they
    are left out."""
    heads: Table = field(default_factory=dict)
    """As `tensors`, of what comes after the hidden states."""
    width: Callable[[A, M], int] = lambda args, model: args.hidden_size
    """`D` of the hidden states."""
    classifier: Callable[[A, int, Parameters], Head] | None = None
    """Makes the head with so many labels; None: there is none."""
    masked_lm: Callable[[A, M, Parameters], TokenWise] | None = None
    """Makes the head for SPLADE, `[*, D]` -> `[*, V]`; None: there is none."""
    finish: Callable[[Ops, Value], Value] | None = None
    """What is done to a pooled vector in the end."""
    quantizes: bool = False
    """Whether `finish` is what sentence-transformers' FlexibleQuantizer does."""
    overflows_float16: bool = False
    """Whether hidden states outgrow float16, whose largest number is 65504."""
    end_of_text: Callable[[dict[str, Any]], str] = lambda config: ""
    """From config.json to the token that the model's own code puts after each text and its tokenizer.json does not; "":
    there is none."""
    checkpoints: tuple[str, ...] = ()
    """A few that people know, by their names on the Hub."""
