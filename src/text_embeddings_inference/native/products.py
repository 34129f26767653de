"""Linear layers and what follows them at once: each becomes one product, several of one input become one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..ops.native import Node
from .steps import UNARY

ENDINGS = frozenset(UNARY) - {"identity", "exp", "log1p"}
"""Functions that a product can end with."""


@dataclass(frozen=True, slots=True)
class Product:
    """A linear layer and what is done to its result at once: act(linear) * factor + summand."""

    linear: Node
    """The linear layer."""
    inner: frozenset[Node] = frozenset()
    """Nodes whose values exist nowhere but in it."""
    act: str = "identity"
    """A name of `ENDINGS`."""
    factor: Node | None = None
    """Multiplied with."""
    summand: Node | None = None
    """Added."""


def find_products(nodes: Sequence[Node], uses: Mapping[Node, int]) -> dict[Node, Product]:
    """The products of a model, by the node whose value each gives.

    nodes: each after its inputs; uses: how often each is used, as an output too."""
    found: dict[Node, Product] = {}
    inner: set[Node] = set()
    for node in reversed(nodes):
        product = None if node in inner else _product(node, uses)
        if product:
            found[node] = product
            inner |= product.inner
    return found


def find_groups(products: dict[Node, Product]) -> dict[Node, list[Node]]:
    """Linear layers that are one product with others, by each of them."""
    by_input = defaultdict(list)
    for node, product in reversed(products.items()):
        if product.linear is node:
            by_input[node.inputs[0]].append(node)
    return {node: nodes for nodes in by_input.values() if len(nodes) > 1 for node in nodes}


def _product(node: Node, uses: Mapping[Node, int]) -> Product | None:
    """The node as a product, if it is one."""

    def only_here(x: Node) -> Product | None:
        return _product(x, uses) if uses[x] == 1 else None

    if node.op == "linear":
        return Product(node)
    if node.op in ENDINGS:
        p = only_here(node.inputs[0])
        if p and p.act == "identity" and not p.factor and not p.summand:
            return replace(p, act=node.op, inner=p.inner | {node.inputs[0]})
    if node.op in ("add", "mul"):
        for x, other in (node.inputs, node.inputs[::-1]):
            p = only_here(x) if other.rows is x.rows and other.shape == x.shape and other is not x else None
            if p and not p.summand and node.op == "add":
                return replace(p, summand=other, inner=p.inner | {x})
            if p and not p.summand and not p.factor and node.op == "mul":
                return replace(p, factor=other, inner=p.inner | {x})
    return None


def in_order(outputs: Iterable[Node]) -> list[Node]:
    """All nodes that the outputs are made of, each after its inputs."""
    order: dict[Node, None] = {}
    pending = [(node, False) for node in reversed(list(outputs))]
    while pending:
        node, ready = pending.pop()
        if node in order:
            continue
        if ready:
            order[node] = None
        else:
            pending += [(node, True), *((x, False) for x in reversed(node.inputs))]
    return list(order)
