"""From the nodes of a model to steps: products take what follows them along, views cost nothing.

- A linear layer with an activation, a factor and a summand behind it is one product.
- Linear layers of one input whose results are used as they are (queries, keys and values) are one wide product.
- `split`, `heads` and `merge` are other views of the same columns; rotations happen where the columns lie.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..ops.native import Node, Rows
from ..ops.spec import AttentionSpec, DisentangledSpec, Rope
from ..types import as_float32
from .library import NUMBERS
from .products import ENDINGS, Product, find_groups, find_products, in_order
from .steps import BINARY, IDS, POOL, REDUCE, UNARY, Experts, Op, Step, Store, View, Weights

SOURCES = ("constant", *IDS)
VIEWS = ("part", "heads", "merge")
NORMS = {"layer_norm": Op.LAYER_NORM, "rms_norm": Op.RMS_NORM, "l2_normalize": Op.L2_NORM}


def make_steps(pooled: Node, hidden: Node | None, max_length: int) -> tuple[list[Step], list[Rope]]:
    """The steps that give the results `[B, D]` and, where there is one, `[T, W]`; and the rotations that depend on a
    sequence's length, which come with each batch.

    max_length: tokens of the longest sequence. Raises UnsupportedError for shapes that no step takes."""
    fuser = _Fuser(pooled, hidden, max_length)
    return fuser.steps, fuser.ropes


class _Fuser:
    def __init__(self, pooled: Node, hidden: Node | None, max_length: int) -> None:
        outputs = [pooled] if hidden is None else [pooled, hidden]
        self._nodes = in_order(outputs)
        self._uses = Counter(x for node in self._nodes for x in node.inputs) + Counter(outputs)
        self._consumers = defaultdict(list)
        for node in self._nodes:
            for x in node.inputs:
                self._consumers[x].append(node)
        self._max_length = max_length
        self._products = find_products(self._nodes, self._uses)
        self._groups = find_groups(self._products)
        self._inner = {node for product in self._products.values() for node in product.inner}
        self._inner |= {embedding for node in self._nodes if (embedding := self._added_embedding(node))}
        self._rotations: dict[Rope, NDArray[np.float32]] = {}
        self.ropes: list[Rope] = []
        self._views: dict[Node, View] = {}
        self.steps: list[Step] = []
        for output, node in zip(("pooled", "hidden"), outputs, strict=False):
            before = len(self.steps)
            self._compute(node, output)
            for step in self.steps[before:]:
                step.for_hidden = output == "hidden"

    # --- from nodes to steps --------------------------------------------------------------------------------------

    def _compute(self, output_node: Node, output: str) -> None:
        """The node's value in a store that is the caller's; first, in order, what it needs."""
        for node in in_order([output_node]):
            if node not in self._inner and node.op not in SOURCES:
                view = self._view(node)
        if not view.is_whole or view.store.output:
            view = self._add(Step(Op.COPY, self._new(output_node), view))
        view.store.output = output

    def _view(self, node: Node) -> View:
        """Where the node's value is."""
        if node not in self._views:
            self._views[node] = self._make(node)
        return self._views[node]

    def _make(self, node: Node) -> View:
        if node in self._groups:
            return self._grouped(node)
        if product := self._products.get(node):
            return self._multiplied(node, product)
        x = node.inputs[0] if node.inputs else node
        if node.op in VIEWS:
            begin = node.detail if node.op == "part" else 0
            return self._view(x).part(begin, node.width)
        if node.op in UNARY:
            return self._add(Step(Op.UNARY, self._new(node), self._view(x), kind=UNARY.index(node.op)))
        if node.op in REDUCE:
            kind = REDUCE.index(node.op)
            return self._add(Step(Op.REDUCE, self._new(node), self._view(x), kind=kind, numbers={"heads": _heads(x)}))
        if node.op in BINARY:
            return self._binary(node)
        if node.op in NORMS:
            weights = tuple(constant(weight) for weight in node.inputs[1:])
            numbers: dict[str, float] = {"heads": _heads(x), "eps": node.detail or 0.0}
            return self._add(Step(NORMS[node.op], self._new(node), self._view(x), constants=weights, numbers=numbers))
        make = getattr(self, f"_make_{node.op}", None)
        if make is None:
            raise UnsupportedError(f"the native engine has no step for the operation `{node.op}`")
        view = make(node)
        assert isinstance(view, View)
        return view

    def _add(self, step: Step) -> View:
        """Where the step's result is."""
        self.steps.append(step)
        return step.out

    def _new(self, node: Node) -> View:
        """A new store for the node's value."""
        if node.rows is Rows.ONE:
            raise UnsupportedError(f"the native engine does not compute `{node.op}` of constants")
        return View(Store(node.rows, node.width), 0, node.width)

    def _grouped(self, node: Node) -> View:
        """A product of several linear layers, of which this one is a part."""
        group = self._groups[node]
        x = self._view(group[0].inputs[0])
        store = Store(node.rows, sum(one.width for one in group))
        whole = View(store, 0, store.width)
        self._add(Step(Op.LINEAR, whole, x, constants=(_weights(*group),)))
        begin = 0
        for one in group:
            self._views[one] = whole.part(begin, one.width)
            begin += one.width
        return self._views[node]

    def _multiplied(self, node: Node, p: Product) -> View:
        y, z = (None if value is None else self._view(value) for value in (p.summand, p.factor))
        x = self._view(p.linear.inputs[0])
        kind, weights = UNARY.index(p.act), _weights(p.linear)
        return self._add(Step(Op.LINEAR, self._new(node), x, y, z, kind, (weights,)))

    def _binary(self, node: Node) -> View:
        x, y = node.inputs
        if embedding := self._added_embedding(node):
            return self._make_embedding(embedding, added=self._view(x if embedding is y else y))
        kind, array = BINARY.index(node.op), constant(y) if y.op == "constant" else None
        shape = y.shape if array is None else tuple(array.shape[-len(x.shape) :])
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
        numbers = _broadcast(x.shape, shape)
        operand = None if array is not None else self._view(y)
        step = Step(Op.BINARY, self._new(node), self._view(x), operand, None, kind, (array,), numbers)
        return self._add(step)

    def _added_embedding(self, node: Node) -> Node | None:
        """The embedding that is added where it is looked up, if the node is such a sum."""
        if node.op != "add" or node in self._products:
            return None
        for one, other in (node.inputs[::-1], node.inputs):
            if one.op == "embedding" and self._uses[one] == 1 and (one.rows, one.shape) == (other.rows, other.shape):
                return one
        return None

    def _make_embedding(self, node: Node, added: View | None = None) -> View:
        table, ids = node.inputs
        if ids.op not in IDS:
            raise UnsupportedError("the native engine looks up token ids, token types and positions only")
        kind = IDS.index(ids.op)
        return self._add(Step(Op.EMBED, self._new(node), y=added, kind=kind, constants=(_table(table),)))

    def _make_experts(self, node: Node) -> View:
        x, gates, *matrices = node.inputs
        if node.detail not in ENDINGS:
            raise UnsupportedError(f"the native engine has no experts with the activation `{node.detail}`")
        weights = [Weights((stored(matrix),), (None,)) for matrix in matrices]
        experts = Experts(tuple(zip(weights[::2], weights[1::2], strict=True)))
        x_view, y = self._view(x), self._view(gates)
        numbers = {"count": len(experts.pairs)}
        kind = UNARY.index(node.detail)
        return self._add(Step(Op.EXPERTS, self._new(node), x_view, y, None, kind, (experts,), numbers))

    def _make_concat(self, node: Node) -> View:
        whole, begin = self._new(node), 0
        for x in node.inputs:
            self._add(Step(Op.COPY, whole.part(begin, x.width), self._view(x)))
            begin += x.width
        return whole

    def _make_keep_largest(self, node: Node) -> View:
        [x] = node.inputs
        numbers = {"heads": _heads(x), "count": node.detail}
        return self._add(Step(Op.KEEP_LARGEST, self._new(node), self._view(x), numbers=numbers))

    def _make_shift(self, node: Node) -> View:
        x, numbers = self._view(node.inputs[0]), {"count": node.detail}
        return self._add(Step(Op.SHIFT, self._new(node), x, numbers=numbers))

    def _make_pool(self, node: Node) -> View:
        return self._add(Step(Op.POOL, self._new(node), self._view(node.inputs[0]), kind=POOL.index(node.detail)))

    def _make_rope(self, node: Node) -> View:
        [x], rope = node.inputs, node.detail
        by_length = rope.depends_on_length(self._max_length)
        if by_length and rope not in self.ropes:
            self.ropes.append(rope)
        if not by_length and rope not in self._rotations:
            self._rotations[rope] = rope.table(self._max_length)
        table = () if by_length else tuple(self._rotations[rope])
        view = self._view(x)
        place = view if self._is_read_once(x) else self._new(node)
        numbers = {
            "heads": _heads(x),
            "count": len(rope.inverse_frequencies),
            "by_length": 1 + self.ropes.index(rope) if by_length else 0,
        }
        return self._add(Step(Op.ROPE, place, view, constants=table, numbers=numbers))

    def _make_attention(self, node: Node) -> View:
        spec: AttentionSpec = node.detail
        q, k, v = node.inputs[:3]
        bias = None if spec.bias is None else constant(spec.bias.table.raw)
        slopes = None if spec.alibi is None else np.array(spec.alibi, np.float32)
        numbers = {
            "heads": _heads(q),
            "key_heads": _heads(k),
            "scale": q.shape[-1] ** -0.5 if spec.scale is None else spec.scale,
            "cap": spec.cap or 0,
            "causal": spec.causal,
            "window": -1 if spec.window is None else spec.window,
            "reach": 0 if spec.bias is None else spec.bias.reach,
        }
        x, y, z = (self._view(node) for node in (q, k, v))
        return self._add(Step(Op.ATTENTION, self._new(node), x, y, z, 0, (bias, slopes), numbers))

    def _make_disentangled_attention(self, node: Node) -> View:
        spec: DisentangledSpec = node.detail
        q, k, v = node.inputs
        tables = [None if table is None else constant(table.raw) for table in (spec.keys, spec.queries)]
        numbers = {
            "heads": _heads(q),
            "key_heads": _heads(k),
            "scale": spec.scale,
            "window": -1,
            "reach": len(spec.rows) // 2,
            "table_rows": max((len(table) for table in tables if table is not None), default=0),
        }
        x, y, z = (self._view(node) for node in (q, k, v))
        return self._add(Step(Op.DISENTANGLED, self._new(node), x, y, z, 0, (spec.rows, *tables), numbers))

    def _is_read_once(self, x: Node) -> bool:
        """Whether nothing but one step reads these columns, so that it may write there."""
        if self._uses[x] != 1 or not x.inputs:
            return False
        if x.op in ("heads", "merge"):
            return self._is_read_once(x.inputs[0])
        if x.op != "part":
            return True
        [whole] = x.inputs
        parts = self._consumers[whole]
        apart = sorted((part.detail, part.width) for part in parts if part.op == "part")
        disjoint = all(begin + width <= after for (begin, width), (after, _) in pairwise(apart))
        return len(apart) == len(parts) == self._uses[whole] and disjoint and whole.op not in VIEWS


def stored(node: Node) -> NDArray[Any]:
    """The array of a constant, in the type that it is stored in. Raises UnsupportedError for a computed value."""
    if node.op != "constant":
        raise UnsupportedError(f"the native engine takes weights as they are stored, not computed by `{node.op}`")
    array: NDArray[Any] = node.detail
    return array


def constant(node: Node) -> NDArray[Any]:
    """The array of a constant, float32 or integers, C-contiguous. Raises as `stored`."""
    array = stored(node)
    return np.require(array, None, "C") if array.dtype.kind in "iu" else as_float32(array)


def _table(node: Node) -> NDArray[Any]:
    """The rows of a table of embeddings: as they are stored, where rows of it can be looked up."""
    array = stored(node)
    if not any(array.strides):
        return array  # it stands in for weights that were not read, and takes no memory
    is_shape = not any(array.strides)  # of a model whose weights nobody reads
    return array if is_shape or (array.flags.c_contiguous and array.dtype in NUMBERS) else as_float32(array)


def _weights(*linears: Node) -> Weights:
    return Weights(
        tuple(stored(node.inputs[1]) for node in linears),
        tuple(stored(node.inputs[2]) if len(node.inputs) > 2 else None for node in linears),
    )


def _heads(x: Node) -> int:
    """Vectors of a row."""
    return x.shape[0] if len(x.shape) > 1 else 1


def _broadcast(x: tuple[int, ...], y: tuple[int, ...]) -> dict[str, float]:
    """How y goes with x: vectors of a row, floats from one vector of y to the next, and from one number to the next."""
    forms = [
        (y == x, (1, 0, 1)),
        (y == (1,), (1, 0, 0)),
        (len(x) == 2 and y == x[1:], (x[0], 0, 1)),
        (len(x) == 2 and y == (x[0], 1), (x[0], 1, 0)),
    ]
    for fits, numbers in forms:
        if fits:
            return dict(zip(("heads", "y_head_stride", "y_step"), numbers, strict=True))
    raise UnsupportedError(f"the native engine does not combine rows of shape {x} with rows of shape {y}")
