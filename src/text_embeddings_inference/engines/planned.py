"""What a plan of the native engine is made of, known from the shapes of weights alone."""

from __future__ import annotations

from dataclasses import dataclass

from ..native.fuse import make_steps
from ..native.places import find_places
from ..native.plan import describe, summarize
from ..ops.native import NativeOps, Node, inputs
from .base import Need
from .inspection import inspect


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan to be read."""

    summary: str
    """How many steps it has, of which kinds."""
    steps: str
    """A line for each."""


def planned(need: Need) -> Planned | None:
    """The plan; None where there are no tensors to see the shapes of. Raises StartError as the engine would."""
    if (nodes := record(need)) is None:
        return None
    steps, _ = make_steps(*nodes, need.checkpoint.longest)
    places = find_places(steps)
    return Planned(summarize(steps, places), describe(steps, places, {}))


def record(need: Need) -> tuple[Node, Node | None] | None:
    """The nodes of the results, pooled and of tokens, with constants that have no values; None without tensors."""
    ops = NativeOps(need.checkpoint.longest)
    network = inspect(need.checkpoint, ops)
    if network is None:
        return None
    pooled, tokens = network.run(ops, inputs())
    return pooled.raw, None if tokens is None else tokens.raw
