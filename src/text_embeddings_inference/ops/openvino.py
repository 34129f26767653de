"""The operations as nodes of an OpenVINO graph, on padded batches `[B, S, ...]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Pooling
from .openvino_library import op, ov
from .spec import AttentionSpec, DisentangledSpec, Gelu, Layout, Ops, Rope, Value

_HIDDEN = -1e9
"""Added to a score that must not count: finite, so that a row with nothing to see stays finite too."""


def _int64(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def _int64_scalar(value: int) -> ov.Node:
    return op.constant(np.array(value, np.int64))


def _float32(value: float) -> ov.Node:
    return op.constant(np.array(value, np.float32))


def _unsqueeze(node: ov.Node, *axes: int) -> ov.Node:
    return op.unsqueeze(node, _int64(*axes))


def _shape(x: ov.Node | ov.Output) -> ov.PartialShape:
    """Of a node with one output, or of one output of a node that has several."""
    return x.get_partial_shape() if isinstance(x, ov.Output) else x.get_output_partial_shape(0)


def flatten(x: ov.Node | ov.Output) -> ov.Node:
    """`[*, D]` -> `[T, D]`."""
    return op.reshape(x, _int64(-1, _shape(x)[-1].get_length()), False)


def _slopes(alibi: Sequence[float]) -> ov.Node:
    """`[N, 1, 1]`."""
    return op.constant(np.array(alibi, np.float32).reshape(-1, 1, 1))


def _channels(x: ov.Node, first: int, end: int) -> ov.Node:
    """A part of the last axis of `[B, S, N, H]`."""
    return op.slice(x, _int64(first), _int64(end), _int64(1), _int64(3))


def _count_heads(x: ov.Node) -> int:
    """`N` of `[B, N, S, H]`."""
    return int(_shape(x)[1].get_length())


def _repeat_heads(x: ov.Node, n: int) -> ov.Node:
    """`[B, N', S, H]` -> `[B, n, S, H]`: each head serves n / N' neighbouring heads of queries."""
    own = _count_heads(x)
    if own == n:
        return x
    assert n % own == 0
    return op.gather(x, _int64(*np.repeat(np.arange(own), n // own)), _int64_scalar(1))


class PaddedLayout:
    """The sequences of a padded batch: where rows end, and the masks that follow from it, each made once per graph."""

    def __init__(self, lengths: ov.Node, width: ov.Node, attended: ov.Node | None = None) -> None:
        """lengths: int32 `[B]`; width: `S`, an int64 scalar; attended: int32 `[B]`, None for the lengths."""
        self.lengths = lengths
        self.width = width
        self._attended = lengths if attended is None else attended
        self._attention_biases: dict[AttentionSpec, ov.Node] = {}
        self._rotations: dict[Rope, tuple[ov.Node, ov.Node]] = {}
        self.rotations_by_length: dict[Rope, ov.Node] = {}
        """Inputs of the graph, float32 `[2, B, S, 1, R]`: see `rotate_by_length`."""
        self._rows: dict[int, tuple[ov.Node, ov.Node]] = {}

    @cached_property
    def indices(self) -> ov.Node:
        """0 ... S - 1, int32 `[S]`."""
        return op.range(_int64_scalar(0), self.width, _int64_scalar(1), output_type="i32")

    @cached_property
    def kept(self) -> ov.Node:
        """1 for a token, 0 for padding: float32 `[B, S]`."""
        return self._before(self.lengths)

    @cached_property
    def seen(self) -> ov.Node:
        """1 for a token that is seen in attention, 0 for others and for padding: float32 `[B, S]`."""
        return self.kept if self._attended is self.lengths else self._before(self._attended)

    @cached_property
    def one(self) -> ov.Node:
        """1, which OpenVINO can't know when it compiles: a scalar, float32."""
        return op.reduce_max(self.kept, _int64(0, 1), False)

    @cached_property
    def padding_bias(self) -> ov.Node:
        """0 for a token, `_HIDDEN` for padding: float32 `[B, S]`."""
        return op.multiply(op.subtract(_float32(1), self.kept), _float32(_HIDDEN))

    @cached_property
    def key_bias(self) -> ov.Node:
        """0 for a token that is seen in attention, `_HIDDEN` for others and for padding: float32 `[B, S]`."""
        if self._attended is self.lengths:
            return self.padding_bias
        return op.multiply(op.subtract(_float32(1), self.seen), _float32(_HIDDEN))

    def _before(self, ends: ov.Node) -> ov.Node:
        """1 for the places before each row's end, 0 for others: float32 `[B, S]`."""
        return op.convert(op.less(_unsqueeze(self.indices, 0), _unsqueeze(ends, 1)), "f32")

    def attention_bias(self, spec: AttentionSpec) -> ov.Node:
        """What is added to the scores: float32, broadcasts to `[B, N, S, S]`; with ALiBi divided by the slopes."""
        if spec not in self._attention_biases:
            bias = _unsqueeze(self.key_bias, 1, 2)
            if spec.causal or spec.window is not None or spec.bias is not None or spec.alibi is not None:
                bias = op.add(bias, self._distance_bias(spec))
            self._attention_biases[spec] = bias
        return self._attention_biases[spec]

    def _distance_bias(self, spec: AttentionSpec) -> ov.Node:
        """The part that depends on how far the key lies after the query: `[N or 1, S, S]`."""
        keys, queries = _unsqueeze(self.indices, 0), _unsqueeze(self.indices, 1)
        distance = op.subtract(keys, queries)
        hidden = []
        if spec.causal:
            hidden.append(op.convert(op.greater(distance, op.constant(np.int32(0))), "f32"))
        if spec.window is not None:
            hidden.append(op.convert(op.greater(op.abs(distance), op.constant(np.int32(spec.window))), "f32"))
        biases = [_unsqueeze(op.multiply(term, _float32(_HIDDEN)), 0) for term in hidden]
        if spec.bias is not None:
            reach = spec.bias.reach
            row = op.add(op.clamp(distance, float(-reach), float(reach)), op.constant(np.int32(reach)))
            by_head = op.transpose(op.gather(spec.bias.table.raw, row, _int64_scalar(0)), _int64(2, 0, 1))
            biases.append(by_head if spec.alibi is None else op.divide(by_head, _slopes(spec.alibi)))
        if spec.alibi is not None:
            biases.append(_unsqueeze(op.convert(op.negative(op.abs(distance)), "f32"), 0))
        return reduce(op.add, biases)

    def rows_by_distance(self, rows: NDArray[np.int32]) -> tuple[ov.Node, ov.Node]:
        """Of `DisentangledSpec.rows`, those for the distances S - 1, ..., -S, and for 1 - S, ..., S: int32 `[2S]`."""
        if id(rows) not in self._rows:  # the layers of a model share one array, which the graph keeps alive
            reach, width, one = len(rows) // 2, op.convert(self.width, "i32"), op.constant(np.int32(1))
            rising = op.range(op.subtract(one, width), op.add(width, one), one, output_type="i32")
            falling, rising = (
                op.add(op.clamp(d, -reach, reach), op.constant(np.int32(reach))) for d in (op.negative(rising), rising)
            )
            table, axis = op.constant(rows), _int64_scalar(0)
            self._rows[id(rows)] = op.gather(table, falling, axis), op.gather(table, rising, axis)
        return self._rows[id(rows)]

    def skew(self, x: ov.Node) -> ov.Node:
        """`[B, N, S, 2S]` -> `[B, N, S, S]`: row i of the result is its row i from column S - 1 - i on.

        The trick of Transformer-XL (Dai et al., arXiv:1901.02860): read the rows one after another and fold them into
        rows that are one shorter, and each begins one column earlier than the row above.
        """
        width, last = _unsqueeze(self.width, 0), _int64(-1)
        start = op.subtract(width, _int64(1))
        end = op.add(start, op.multiply(width, op.add(width, start)))
        flat = op.slice(op.reshape(x, _int64(0, 0, -1), True), start, end, _int64(1), last)
        folded = op.reshape(flat, op.concat([_int64(0, 0), width, last], 0), True)
        return op.slice(folded, _int64(0), width, _int64(1), last)

    def rotation(self, rope: Rope, max_length: int) -> tuple[ov.Node, ov.Node]:
        """Cosine and sine for each position and channel, `[1 or B, S, 1, R]`: the first rows of tables made at load,
        or an input of the graph where they depend on the lengths.

        Angles are not computed in the graph: an engine that runs in bfloat16 would round them.
        """
        if rope in self._rotations:
            return self._rotations[rope]
        if rope.depends_on_length(max_length):
            width = 2 * len(rope.inverse_frequencies)
            both = self.rotations_by_length[rope] = op.parameter([2, -1, -1, 1, width], np.float32)
            cos, sin = (op.gather(both, _int64_scalar(i), _int64_scalar(0)) for i in range(2))
        else:
            tables = np.tile(rope.table(max_length), 2)
            rows = (op.gather(op.constant(table), self.indices, _int64_scalar(0)) for table in tables)
            cos, sin = (_unsqueeze(row, 0, 2) for row in rows)
        self._rotations[rope] = cos, sin
        return cos, sin


def rotate_by_length(rope: Rope, lengths: Sequence[int], width: int) -> NDArray[np.float32]:
    """Cosine and sine for a padded batch, each row by its own length: `[2, 1 or B, S, 1, R]`."""
    if not rope.depends_on_length(max(lengths)):
        lengths = lengths[:1]  # as any other
    by_row = np.stack([rope.table(length, width) for length in lengths], 1)
    return np.tile(by_row, 2)[:, :, :, None]


class OpenVINOOps(Ops):
    """Builds nodes; see `spec.Ops` for what each operation means."""

    def __init__(self, max_length: int) -> None:
        """max_length: tokens of the longest sequence that will come."""
        self.max_length = max_length

    def constant(self, array: NDArray[Any]) -> Value:
        return Value(op.constant(np.ascontiguousarray(array), shared_memory=True))

    def embedding(self, table: Value, ids: Value) -> Value:
        return Value(op.gather(table.raw, ids.raw, _int64_scalar(0)))

    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        product = op.matmul(x.raw, weight.raw, False, True)
        return Value(product if bias is None else op.add(product, bias.raw))

    def add(self, x: Value, y: Value | float) -> Value:
        return Value(op.add(x.raw, self._operand(y)))

    def sub(self, x: Value, y: Value | float) -> Value:
        return Value(op.subtract(x.raw, self._operand(y)))

    def mul(self, x: Value, y: Value | float) -> Value:
        return Value(op.multiply(x.raw, self._operand(y)))

    def div(self, x: Value, y: Value | float) -> Value:
        return Value(op.divide(x.raw, self._operand(y)))

    def gelu(self, x: Value, form: Gelu = "erf") -> Value:
        return self._activate(x, lambda node: op.gelu(node, form))

    def relu(self, x: Value) -> Value:
        return self._activate(x, op.relu)

    def silu(self, x: Value) -> Value:
        return self._activate(x, op.swish)

    def tanh(self, x: Value) -> Value:
        return self._activate(x, op.tanh)

    def sigmoid(self, x: Value) -> Value:
        return self._activate(x, op.sigmoid)

    def sqrt(self, x: Value) -> Value:
        return Value(op.sqrt(x.raw))

    def exp(self, x: Value) -> Value:
        return Value(op.exp(x.raw))

    def log1p(self, x: Value) -> Value:
        return Value(op.log(op.add(x.raw, _float32(1))))

    def round(self, x: Value) -> Value:
        return Value(op.round(x.raw, "half_to_even"))

    def softmax(self, x: Value) -> Value:
        return Value(op.softmax(x.raw, -1))

    def sum(self, x: Value) -> Value:
        return Value(op.reduce_sum(x.raw, _int64(-1), True))

    def mean(self, x: Value) -> Value:
        return Value(op.reduce_mean(x.raw, _int64(-1), True))

    def max(self, x: Value) -> Value:
        return Value(op.reduce_max(x.raw, _int64(-1), True))

    def keep_largest(self, x: Value, k: int) -> Value:
        largest = op.topk(x.raw, _int64_scalar(k), -1, "max", "value").output(0)
        kept = op.greater_equal(x.raw, op.reduce_min(largest, _int64(-1), True))
        return Value(op.multiply(x.raw, op.convert(kept, "f32")))

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        parts = op.variadic_split(x.raw, _int64_scalar(-1), _int64(*sizes))
        return [Value(part) for part in parts.outputs()]

    def concat(self, xs: Sequence[Value]) -> Value:
        return Value(op.concat([x.raw for x in xs], -1))

    def heads(self, x: Value, n: int) -> Value:
        outer = [0] * (_shape(x.raw).rank.get_length() - 1)
        return Value(op.reshape(x.raw, _int64(*outer, n, -1), True))

    def merge(self, x: Value) -> Value:
        outer = [0] * (_shape(x.raw).rank.get_length() - 2)
        return Value(op.reshape(x.raw, _int64(*outer, -1), True))

    def positions(self, layout: Layout) -> Value:
        return Value(_unsqueeze(self._padded(layout).indices, 0))

    def shift(self, x: Value, by: int, layout: Layout) -> Value:
        padded, zero = self._padded(layout), op.constant(np.int32(0))
        sources = op.add(padded.indices, op.constant(np.int32(by)))
        last = op.subtract(_unsqueeze(padded.lengths, 1), op.constant(np.int32(1)))
        exists = op.logical_and(op.greater_equal(sources, zero), op.less_equal(_unsqueeze(sources, 0), last))
        nearest = op.minimum(op.maximum(sources, zero), op.convert(op.subtract(padded.width, _int64_scalar(1)), "i32"))
        moved = op.gather(x.raw, nearest, _int64_scalar(1))
        return Value(op.select(_unsqueeze(exists, 2), moved, _float32(0)))

    def rope(self, x: Value, rope: Rope, layout: Layout) -> Value:
        """In the form that OpenVINO knows and runs as one kernel: x cos + (-x2, x1) sin, its halves cut by Slice."""
        cos, sin = self._padded(layout).rotation(rope, self.max_length)
        half, width = len(rope.inverse_frequencies), _shape(x.raw)[3].get_length()
        turning = x.raw if 2 * half == width else _channels(x.raw, 0, 2 * half)
        minus_one = op.constant(np.full((1, 1, 1, 1), -1, np.float32))
        turned = op.concat(
            [op.multiply(_channels(turning, half, 2 * half), minus_one), _channels(turning, 0, half)], -1
        )
        sum_BSNR = op.add(op.multiply(turning, cos), op.multiply(turned, sin))
        if 2 * half == width:
            return Value(sum_BSNR)
        return Value(op.concat([sum_BSNR, _channels(x.raw, 2 * half, width)], -1))

    def attention(self, q: Value, k: Value, v: Value, spec: AttentionSpec, layout: Layout) -> Value:
        order, bias = _int64(0, 2, 1, 3), self._padded(layout).attention_bias(spec)
        q_BNSH, k_BNSH, v_BNSH = (op.transpose(x.raw, order) for x in (q, k, v))
        k_BNSH, v_BNSH = (_repeat_heads(x, _count_heads(q_BNSH)) for x in (k_BNSH, v_BNSH))
        scale = _shape(q.raw)[3].get_length() ** -0.5 if spec.scale is None else spec.scale
        if spec.alibi is None:
            out_BNSH = op.scaled_dot_product_attention(q_BNSH, k_BNSH, v_BNSH, bias, self._scale(scale, layout))
        else:
            # With the slopes multiplied in last, the bias is one for all heads; `[N, S, S]` would be gigabytes.
            slopes = np.array(spec.alibi, np.float32).reshape(-1, 1)
            q_BNSH = op.transpose(op.multiply(q.raw, op.constant(scale / slopes)), order)
            scores = op.add(op.matmul(q_BNSH, k_BNSH, False, True), bias)
            weights = op.softmax(op.multiply(scores, _slopes(spec.alibi)), -1)
            out_BNSH = op.matmul(weights, v_BNSH, False, False)
        return Value(op.transpose(out_BNSH, order))

    def disentangled_attention(self, q: Value, k: Value, v: Value, spec: DisentangledSpec, layout: Layout) -> Value:
        # The terms with positions are computed by distance and then moved to their places. To pick them by an index
        # for each pair of tokens took about twice as long up to 128 tokens, and a quarter less time at 512.
        padded, order = self._padded(layout), _int64(0, 2, 1, 3)
        q_BNSH, k_BNSH, v_BNSH = (op.transpose(x.raw, order) for x in (q, k, v))
        key_rows, query_rows = padded.rows_by_distance(spec.rows)
        scores_BNSS = op.matmul(q_BNSH, k_BNSH, False, True)
        if spec.keys is not None:
            by_distance = op.matmul(q_BNSH, self._by_head(spec.keys, key_rows), False, True)
            scores_BNSS = op.add(scores_BNSS, padded.skew(by_distance))
        if spec.queries is not None:
            by_distance = op.matmul(k_BNSH, self._by_head(spec.queries, query_rows), False, True)
            scores_BNSS = op.add(scores_BNSS, op.transpose(padded.skew(by_distance), _int64(0, 1, 3, 2)))
        scaled = op.multiply(scores_BNSS, _float32(spec.scale))
        weights_BNSS = op.softmax(op.add(scaled, _unsqueeze(padded.key_bias, 1, 2)), -1)
        return Value(op.transpose(op.matmul(weights_BNSS, v_BNSH, False, False), order))

    @staticmethod
    def _by_head(table: Value, rows: ov.Node) -> ov.Node:
        """Rows of `[P, N, H]`, as `[1, N, rows, H]`."""
        by_head = op.transpose(table.raw, _int64(1, 0, 2))  # of a constant: done once, when the graph is compiled
        return _unsqueeze(op.gather(by_head, rows, _int64_scalar(1)), 0)

    def pool(self, x: Value, pooling: Pooling, layout: Layout) -> Value:
        padded, x_BSD = self._padded(layout), x.raw
        if pooling is Pooling.CLS:
            return Value(op.gather(x_BSD, _int64_scalar(0), _int64_scalar(1)))
        if pooling is Pooling.LAST_TOKEN:
            last = op.subtract(padded.lengths, op.constant(np.int32(1)))
            return Value(op.squeeze(op.gather(x_BSD, _unsqueeze(last, 1), _int64_scalar(1), 1), _int64(1)))
        if pooling in (Pooling.MAX, Pooling.SPLADE):
            largest = op.reduce_max(op.add(x_BSD, _unsqueeze(padded.padding_bias, 2)), _int64(1))
            return self.log1p(self.relu(Value(largest))) if pooling is Pooling.SPLADE else Value(largest)
        weights_BS = padded.kept
        if pooling is Pooling.WEIGHTED_MEAN:
            ordinals = op.convert(op.add(padded.indices, op.constant(np.int32(1))), "f32")
            weights_BS = op.multiply(weights_BS, _unsqueeze(ordinals, 0))
        total = op.reduce_sum(op.multiply(x_BSD, _unsqueeze(weights_BS, 2)), _int64(1))
        count = op.reduce_sum(weights_BS, _int64(1), True)
        return Value(op.divide(total, op.sqrt(count) if pooling is Pooling.MEAN_SQRT_LEN else count))

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, eps: float) -> Value:
        normed = op.mvn(x.raw, _int64(-1), True, eps, "inside_sqrt")
        scaled = op.multiply(normed, weight.raw)
        return Value(scaled if bias is None else op.add(scaled, bias.raw))

    def experts(
        self, x: Value, gates: Value, up: Sequence[Value], down: Sequence[Value], act: Callable[[Ops, Value], Value]
    ) -> Value:
        """Each expert gets the tokens that chose it, and its results are added at their places."""
        tokens_TD, gates_ET = flatten(x.raw), op.transpose(flatten(gates.raw), _int64(1, 0))
        sum_TD = op.broadcast(_float32(0), op.shape_of(tokens_TD))
        for expert, (u, d) in enumerate(zip(up, down, strict=True)):
            gate_T = op.gather(gates_ET, _int64_scalar(expert), _int64_scalar(0))
            chosen = op.squeeze(op.non_zero(gate_T, "i32"), _int64(0))
            own = Value(op.gather(tokens_TD, chosen, _int64_scalar(0)))
            result = self.linear(act(self, self.linear(own, u)), d).raw
            weighted = op.multiply(result, _unsqueeze(op.gather(gate_T, chosen, _int64_scalar(0)), 1))
            sum_TD = op.scatter_nd_update(sum_TD, _unsqueeze(chosen, 1), weighted, "sum")
        return Value(op.reshape(sum_TD, op.shape_of(x.raw), False))

    def _activate(self, x: Value, activation: Callable[[ov.Node], ov.Node]) -> Value:
        return Value(activation(x.raw))

    def _scale(self, value: float, layout: Layout) -> ov.Node:
        """Of attention scores."""
        return _float32(value)

    @staticmethod
    def _operand(y: Value | float) -> ov.Node:
        return y.raw if isinstance(y, Value) else _float32(y)

    @staticmethod
    def _padded(layout: Layout) -> PaddedLayout:
        assert isinstance(layout.raw, PaddedLayout)
        return layout.raw
