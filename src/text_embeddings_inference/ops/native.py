"""The operations as records: a model file is called once, at load, and what it asks for is kept as a graph of nodes.

The engine for CPUs makes a plan of them (`native.plan`). Batches are packed: a value has a row for each token, one for
each sequence, or, as a constant, one for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Pooling
from .spec import AttentionSpec, DisentangledSpec, Gelu, Inputs, Layout, Ops, Rope, Value


class Rows(Enum):
    """What a value has a row for."""

    TOKENS = "tokens"
    SEQUENCES = "sequences"
    ONE = "one"
    """A constant: the same for all."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation, or an input or constant, and what it gives."""

    op: str
    """Its name in `spec.Ops`; `part`: columns of a split; `constant`, `input_ids`, `type_ids`."""
    inputs: tuple[Node, ...]
    """Values that it takes, constants among them."""
    rows: Rows
    shape: tuple[int, ...]
    """Of one row, `(D,)` or `(N, H)`; of a constant, its whole shape; `()` of ids."""
    detail: Any = None
    """What else it takes: an array, a number, a range of columns, the form of an activation or a spec."""

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return math.prod(self.shape)


class NativeOps(Ops):
    """Records; see `spec.Ops` for what each operation means."""

    def __init__(self, max_length: int) -> None:
        """max_length: tokens of the longest sequence that will come."""
        self.max_length = max_length

    def constant(self, array: NDArray[Any]) -> Value:
        return Value(Node("constant", (), Rows.ONE, array.shape, array))

    def embedding(self, table: Value, ids: Value) -> Value:
        return Value(Node("embedding", (table.raw, ids.raw), ids.raw.rows, table.raw.shape[1:]))

    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        inputs = (x.raw, weight.raw) if bias is None else (x.raw, weight.raw, bias.raw)
        return Value(Node("linear", inputs, x.raw.rows, weight.raw.shape[:1]))

    def add(self, x: Value, y: Value | float) -> Value:
        return _binary("add", x.raw, y)

    def sub(self, x: Value, y: Value | float) -> Value:
        return _binary("sub", x.raw, y)

    def mul(self, x: Value, y: Value | float) -> Value:
        return _binary("mul", x.raw, y)

    def div(self, x: Value, y: Value | float) -> Value:
        return _binary("div", x.raw, y)

    def gelu(self, x: Value, form: Gelu = "erf") -> Value:
        return _same("gelu" if form == "erf" else "gelu_tanh", x)

    def relu(self, x: Value) -> Value:
        return _same("relu", x)

    def silu(self, x: Value) -> Value:
        return _same("silu", x)

    def tanh(self, x: Value) -> Value:
        return _same("tanh", x)

    def sigmoid(self, x: Value) -> Value:
        return _same("sigmoid", x)

    def sqrt(self, x: Value) -> Value:
        return _same("sqrt", x)

    def exp(self, x: Value) -> Value:
        return _same("exp", x)

    def log1p(self, x: Value) -> Value:
        return _same("log1p", x)

    def round(self, x: Value) -> Value:
        return _same("round", x)

    def softmax(self, x: Value) -> Value:
        return _same("softmax", x)

    def sum(self, x: Value) -> Value:
        return _reduced("sum", x)

    def mean(self, x: Value) -> Value:
        return _reduced("mean", x)

    def max(self, x: Value) -> Value:
        return _reduced("max", x)

    def keep_largest(self, x: Value, k: int) -> Value:
        return _same("keep_largest", x, detail=k)

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        """Of a linear layer: a layer for each part, which may have an activation of its own behind it."""
        assert sum(sizes) == x.raw.shape[-1]
        ends = list(accumulate(sizes))
        ranges = [(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        if x.raw.op == "linear":
            inputs, *weights = x.raw.inputs
            parts = [[self.constant(weight.detail[begin:end]) for weight in weights] for begin, end in ranges]
            return [self.linear(Value(inputs), *part) for part in parts]
        *outer, _ = x.raw.shape
        return [Value(Node("part", (x.raw,), x.raw.rows, (*outer, end - begin), begin)) for begin, end in ranges]

    def concat(self, xs: Sequence[Value]) -> Value:
        *outer, _ = xs[0].raw.shape
        width = sum(x.raw.shape[-1] for x in xs)
        return Value(Node("concat", tuple(x.raw for x in xs), xs[0].raw.rows, (*outer, width)))

    def heads(self, x: Value, n: int) -> Value:
        return Value(Node("heads", (x.raw,), x.raw.rows, (n, x.raw.width // n)))

    def merge(self, x: Value) -> Value:
        return Value(Node("merge", (x.raw,), x.raw.rows, (x.raw.width,)))

    def positions(self, layout: Layout) -> Value:
        return Value(Node("positions", (), Rows.TOKENS, ()))

    def shift(self, x: Value, by: int, layout: Layout) -> Value:
        return _same("shift", x, detail=by)

    def rope(self, x: Value, rope: Rope, layout: Layout) -> Value:
        return _same("rope", x, detail=rope)

    def attention(self, q: Value, k: Value, v: Value, spec: AttentionSpec, layout: Layout) -> Value:
        tables = () if spec.bias is None else (spec.bias.table.raw,)
        return _same("attention", q, k, v, *map(Value, tables), detail=spec)

    def disentangled_attention(self, q: Value, k: Value, v: Value, spec: DisentangledSpec, layout: Layout) -> Value:
        return _same("disentangled_attention", q, k, v, detail=spec)

    def pool(self, x: Value, pooling: Pooling, layout: Layout) -> Value:
        return Value(Node("pool", (x.raw,), Rows.SEQUENCES, x.raw.shape, pooling))

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, eps: float) -> Value:
        return _same("layer_norm", x, weight, *([] if bias is None else [bias]), detail=eps)

    def rms_norm(self, x: Value, weight: Value, eps: float) -> Value:
        return _same("rms_norm", x, weight, detail=eps)

    def experts(
        self, x: Value, gates: Value, up: Sequence[Value], down: Sequence[Value], act: Callable[[Ops, Value], Value]
    ) -> Value:
        """One node; its inputs are x, the gates, and up and down of each expert, its detail the activation's name."""
        given = Node("given", (), x.raw.rows, up[0].raw.shape[:1])
        acted: Node = act(self, Value(given)).raw
        if acted.inputs != (given,):
            return super().experts(x, gates, up, down, act)
        weights = [value for pair in zip(up, down, strict=True) for value in pair]
        return _same("experts", x, gates, *weights, detail=acted.op)

    def l2_normalize(self, x: Value) -> Value:
        return _same("l2_normalize", x)


def inputs() -> Inputs:
    """What a model is called with when it is recorded."""
    ids, types = (Value(Node(name, (), Rows.TOKENS, ())) for name in ("input_ids", "type_ids"))
    return Inputs(ids, types, Layout(None))


def _same(op: str, x: Value, *others: Value, detail: Any = None) -> Value:
    """An operation whose result has the shape of x."""
    return Value(Node(op, (x.raw, *(other.raw for other in others)), x.raw.rows, x.raw.shape, detail))


def _reduced(op: str, x: Value) -> Value:
    return Value(Node(op, (x.raw,), x.raw.rows, (*x.raw.shape[:-1], 1)))


def _binary(op: str, x: Node, y: Value | float) -> Value:
    if isinstance(y, Value):
        return Value(Node(op, (x, y.raw), x.rows, x.shape))
    number = Node("constant", (), Rows.ONE, (1,), np.array([y], np.float32))
    return Value(Node(op, (x, number), x.rows, x.shape))
