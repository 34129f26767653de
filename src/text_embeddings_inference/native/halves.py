"""Which values are kept in bfloat16: those that every kernel that reads them would round to it anyway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .steps import Op, Step, Store, View

READ_AS_HALVES = ("bf16", "i8")
"""Formats of products that take such inputs. 8-bit integers lose next to nothing by it."""


def mark_halves(steps: Sequence[Step], formats: Mapping[Step, str]) -> None:
    """Sets `half` of the stores that may hold bfloat16 numbers: half the memory to go through, and no conversion later.

    Only products and attention write them, and only products, as their input, and attention read them. formats: of all
    products."""
    stores = {view.store: None for step in steps for view in step.views}
    exact = {store for store in stores if store.output or store.width % 2}
    for step in steps:
        exact |= _stores(_needed_exactly(step, formats))
    for inputs in _attended(steps):
        exact |= inputs if inputs & exact else set()
    for store in stores:
        store.half = store not in exact


def _needed_exactly(step: Step, formats: Mapping[Step, str]) -> Iterable[View | None]:
    """The columns that the step reads or writes as float32 numbers. Halves are read in pairs, from even columns on."""
    if step.op is Op.ATTENTION and step.x:
        odd = step.x.width // int(step.numbers["heads"]) % 2
        return (step.out, step.x, step.y, step.z) if odd else ()
    if step.op is Op.LINEAR and step.x:
        exact = formats[step] not in READ_AS_HALVES or (step.x.column | step.x.width) % 2
        return (step.x, step.y, step.z) if exact else (step.y, step.z)
    return step.views


def _attended(steps: Sequence[Step]) -> list[set[Store]]:
    """Stores that are queries, keys and values of the same attentions: they are of one type."""
    groups: list[set[Store]] = []
    for step in steps:
        if step.op is Op.ATTENTION:
            group = _stores((step.x, step.y, step.z))
            joined = [other for other in groups if other & group]
            groups = [other for other in groups if not other & group] + [group.union(*joined)]
    return groups


def _stores(views: Iterable[View | None]) -> set[Store]:
    return {view.store for view in views if view is not None}
