"""The operations as nodes of an OpenVINO graph, on padded batches `[B, S, ...]`, with forms for float32 and int8."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Pooling
from .openvino_layout import PaddedLayout
from .openvino_library import op, ov
from .openvino_nodes import channels, flatten, float32, int64, int64_scalar, repeat_heads, shape, slopes, unsqueeze
from .spec import AttentionSpec, DisentangledSpec, Gelu, Layout, Ops, Rope, Value

FEWEST_ROWS = 16
"""Smaller matrices are heads: their rows are what is asked for, and their products take no time."""
GROUP_MULTIPLE = 16
"""OpenVINO quantizes activations in groups of a multiple of it, or not at all."""
DEFAULT_GROUP = 32


class OpenVINOOps(Ops):
    """Builds nodes; see `spec.Ops` for what each operation means."""

    def __init__(self, max_length: int) -> None:
        """max_length: tokens of the longest sequence that will come."""
        self.max_length = max_length

    def constant(self, array: NDArray[Any]) -> Value:
        return Value(op.constant(np.ascontiguousarray(array), shared_memory=True))

    def embedding(self, table: Value, ids: Value) -> Value:
        return Value(op.gather(table.raw, ids.raw, int64_scalar(0)))

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
        return Value(op.log(op.add(x.raw, float32(1))))

    def round(self, x: Value) -> Value:
        return Value(op.round(x.raw, "half_to_even"))

    def softmax(self, x: Value) -> Value:
        return Value(op.softmax(x.raw, -1))

    def sum(self, x: Value) -> Value:
        return Value(op.reduce_sum(x.raw, int64(-1), True))

    def mean(self, x: Value) -> Value:
        return Value(op.reduce_mean(x.raw, int64(-1), True))

    def max(self, x: Value) -> Value:
        return Value(op.reduce_max(x.raw, int64(-1), True))

    def keep_largest(self, x: Value, k: int) -> Value:
        largest = op.topk(x.raw, int64_scalar(k), -1, "max", "value").output(0)
        kept = op.greater_equal(x.raw, op.reduce_min(largest, int64(-1), True))
        return Value(op.multiply(x.raw, op.convert(kept, "f32")))

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        parts = op.variadic_split(x.raw, int64_scalar(-1), int64(*sizes))
        return [Value(part) for part in parts.outputs()]

    def concat(self, xs: Sequence[Value]) -> Value:
        return Value(op.concat([x.raw for x in xs], -1))

    def heads(self, x: Value, n: int) -> Value:
        outer = [0] * (shape(x.raw).rank.get_length() - 1)
        return Value(op.reshape(x.raw, int64(*outer, n, -1), True))

    def merge(self, x: Value) -> Value:
        outer = [0] * (shape(x.raw).rank.get_length() - 2)
        return Value(op.reshape(x.raw, int64(*outer, -1), True))

    def positions(self, layout: Layout) -> Value:
        return Value(unsqueeze(self._padded(layout).indices, 0))

    def shift(self, x: Value, by: int, layout: Layout) -> Value:
        padded, zero = self._padded(layout), op.constant(np.int32(0))
        sources = op.add(padded.indices, op.constant(np.int32(by)))
        last = op.subtract(unsqueeze(padded.lengths, 1), op.constant(np.int32(1)))
        exists = op.logical_and(op.greater_equal(sources, zero), op.less_equal(unsqueeze(sources, 0), last))
        nearest = op.minimum(op.maximum(sources, zero), op.convert(op.subtract(padded.width, int64_scalar(1)), "i32"))
        moved = op.gather(x.raw, nearest, int64_scalar(1))
        return Value(op.select(unsqueeze(exists, 2), moved, float32(0)))

    def rope(self, x: Value, rope: Rope, layout: Layout) -> Value:
        """In the form that OpenVINO knows and runs as one kernel: x cos + (-x2, x1) sin, its halves cut by Slice."""
        cos, sin = self._padded(layout).rotation(rope, self.max_length)
        half, width = len(rope.inverse_frequencies), shape(x.raw)[3].get_length()
        turning = x.raw if 2 * half == width else channels(x.raw, 0, 2 * half)
        minus_one = op.constant(np.full((1, 1, 1, 1), -1, np.float32))
        turned = op.concat([op.multiply(channels(turning, half, 2 * half), minus_one), channels(turning, 0, half)], -1)
        sum_BSNR = op.add(op.multiply(turning, cos), op.multiply(turned, sin))
        if 2 * half == width:
            return Value(sum_BSNR)
        return Value(op.concat([sum_BSNR, channels(x.raw, 2 * half, width)], -1))

    def attention(self, q: Value, k: Value, v: Value, spec: AttentionSpec, layout: Layout) -> Value:
        order, bias = int64(0, 2, 1, 3), self._padded(layout).attention_bias(spec)
        q_BNSH, k_BNSH, v_BNSH = (op.transpose(x.raw, order) for x in (q, k, v))
        k_BNSH, v_BNSH = (repeat_heads(x, shape(q.raw)[2].get_length()) for x in (k_BNSH, v_BNSH))
        scale = shape(q.raw)[3].get_length() ** -0.5 if spec.scale is None else spec.scale
        if spec.cap is not None:
            scores = op.matmul(op.multiply(q_BNSH, float32(scale / spec.cap)), k_BNSH, False, True)
            scores = op.add(op.multiply(op.tanh(scores), float32(spec.cap)), self._added(spec, bias))
            out_BNSH = op.matmul(op.softmax(scores, -1), v_BNSH, False, False)
        elif spec.alibi is None:
            out_BNSH = op.scaled_dot_product_attention(q_BNSH, k_BNSH, v_BNSH, bias, self._scale(scale, layout))
        else:
            # With the slopes multiplied in last, the bias is one for all heads; `[N, S, S]` would be gigabytes.
            by_head = np.array(spec.alibi, np.float32).reshape(-1, 1)
            q_BNSH = op.transpose(op.multiply(q.raw, op.constant(scale / by_head)), order)
            scores = op.add(op.matmul(q_BNSH, k_BNSH, False, True), bias)
            weights = op.softmax(op.multiply(scores, slopes(spec.alibi)), -1)
            out_BNSH = op.matmul(weights, v_BNSH, False, False)
        sees = self._padded(layout).sees(spec)
        if sees is not None:
            out_BNSH = op.multiply(out_BNSH, sees)
        return Value(op.transpose(out_BNSH, order))

    @staticmethod
    def _added(spec: AttentionSpec, bias: ov.Node) -> ov.Node:
        """What is added to scores: with ALiBi the layout's bias is divided by the slopes."""
        return bias if spec.alibi is None else op.multiply(bias, slopes(spec.alibi))

    def disentangled_attention(self, q: Value, k: Value, v: Value, spec: DisentangledSpec, layout: Layout) -> Value:
        # The terms with positions are computed by distance and then moved to their places. To pick them by an index
        # for each pair of tokens took about twice as long up to 128 tokens, and a quarter less time at 512.
        padded, order = self._padded(layout), int64(0, 2, 1, 3)
        q_BNSH, k_BNSH, v_BNSH = (op.transpose(x.raw, order) for x in (q, k, v))
        key_rows, query_rows = padded.rows_by_distance(spec.rows)
        scores_BNSS = op.matmul(q_BNSH, k_BNSH, False, True)
        if spec.keys is not None:
            by_distance = op.matmul(q_BNSH, self._by_head(spec.keys, key_rows), False, True)
            scores_BNSS = op.add(scores_BNSS, padded.skew(by_distance))
        if spec.queries is not None:
            by_distance = op.matmul(k_BNSH, self._by_head(spec.queries, query_rows), False, True)
            scores_BNSS = op.add(scores_BNSS, op.transpose(padded.skew(by_distance), int64(0, 1, 3, 2)))
        scaled = op.multiply(scores_BNSS, float32(spec.scale))
        weights_BNSS = op.softmax(op.add(scaled, unsqueeze(padded.key_bias, 1, 2)), -1)
        return Value(op.transpose(op.matmul(weights_BNSS, v_BNSH, False, False), order))

    @staticmethod
    def _by_head(table: Value, rows: ov.Node) -> ov.Node:
        """Rows of `[P, N, H]`, as `[1, N, rows, H]`."""
        by_head = op.transpose(table.raw, int64(1, 0, 2))  # of a constant: done once, when the graph is compiled
        return unsqueeze(op.gather(by_head, rows, int64_scalar(1)), 0)

    def pool(self, x: Value, pooling: Pooling, layout: Layout) -> Value:
        padded, x_BSD = self._padded(layout), x.raw
        if pooling is Pooling.CLS:
            return Value(op.gather(x_BSD, int64_scalar(0), int64_scalar(1)))
        if pooling is Pooling.LAST_TOKEN:
            last = op.subtract(padded.lengths, op.constant(np.int32(1)))
            return Value(op.squeeze(op.gather(x_BSD, unsqueeze(last, 1), int64_scalar(1), 1), int64(1)))
        if pooling in (Pooling.MAX, Pooling.SPLADE, Pooling.SPLADE_LOG1P):
            largest = Value(op.reduce_max(op.add(x_BSD, unsqueeze(padded.padding_bias, 2)), int64(1)))
            return largest if pooling is Pooling.MAX else self._splade(largest, pooling)
        weights_BS = padded.kept
        if pooling in (Pooling.SPLADE_SUM, Pooling.SPLADE_SUM_LOG1P):
            weighted = op.multiply(self._splade(x, pooling).raw, unsqueeze(weights_BS, 2))
            return Value(op.reduce_sum(weighted, int64(1)))
        if pooling is Pooling.WEIGHTED_MEAN:
            ordinals = op.convert(op.add(padded.indices, op.constant(np.int32(1))), "f32")
            weights_BS = op.multiply(weights_BS, unsqueeze(ordinals, 0))
        total = op.reduce_sum(op.multiply(x_BSD, unsqueeze(weights_BS, 2)), int64(1))
        count = op.reduce_sum(weights_BS, int64(1), True)
        return Value(op.divide(total, op.sqrt(count) if pooling is Pooling.MEAN_SQRT_LEN else count))

    def _splade(self, x: Value, pooling: Pooling) -> Value:
        """SPLADE's weights of logits."""
        weights = self.log1p(self.relu(x))
        return self.log1p(weights) if pooling in (Pooling.SPLADE_LOG1P, Pooling.SPLADE_SUM_LOG1P) else weights

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, eps: float) -> Value:
        normed = op.mvn(x.raw, int64(-1), True, eps, "inside_sqrt")
        scaled = op.multiply(normed, weight.raw)
        return Value(scaled if bias is None else op.add(scaled, bias.raw))

    def experts(
        self, x: Value, gates: Value, up: Sequence[Value], down: Sequence[Value], act: Callable[[Ops, Value], Value]
    ) -> Value:
        """Each expert gets the tokens that chose it, and its results are added at their places."""
        tokens_TD, gates_ET = flatten(x.raw), op.transpose(flatten(gates.raw), int64(1, 0))
        sum_TD = op.broadcast(float32(0), op.shape_of(tokens_TD))
        for expert, (u, d) in enumerate(zip(up, down, strict=True)):
            gate_T = op.gather(gates_ET, int64_scalar(expert), int64_scalar(0))
            chosen = op.squeeze(op.non_zero(gate_T, "i32"), int64(0))
            own = Value(op.gather(tokens_TD, chosen, int64_scalar(0)))
            result = self.linear(act(self, self.linear(own, u)), d).raw
            weighted = op.multiply(result, unsqueeze(op.gather(gate_T, chosen, int64_scalar(0)), 1))
            sum_TD = op.scatter_nd_update(sum_TD, unsqueeze(chosen, 1), weighted, "sum")
        return Value(op.reshape(sum_TD, op.shape_of(x.raw), False))

    def _activate(self, x: Value, activation: Callable[[ov.Node], ov.Node]) -> Value:
        return Value(activation(x.raw))

    def _scale(self, value: float, layout: Layout) -> ov.Node:
        """Of attention scores."""
        return float32(value)

    @staticmethod
    def _operand(y: Value | float) -> ov.Node:
        return y.raw if isinstance(y, Value) else float32(y)

    @staticmethod
    def _padded(layout: Layout) -> PaddedLayout:
        assert isinstance(layout.raw, PaddedLayout)
        return layout.raw


class Float32OpenVINOOps(OpenVINOOps):
    """The same with nothing fused into matrix products but biases.

    OpenVINO gives such products to MLAS, others to oneDNN, which is slower in float32 and rearranges the weights twice,
    for short batches and for long ones (docs/log.md).
    """

    def _activate(self, x: Value, activation: Callable[[ov.Node], ov.Node]) -> Value:
        """In another shape than the product's, for OpenVINO fuses only what has the same."""
        return Value(op.reshape(activation(flatten(x.raw)), op.shape_of(x.raw), False))

    def _scale(self, value: float, layout: Layout) -> ov.Node:
        """Times a 1 that is computed: a constant would be moved up into the product that makes the keys."""
        return op.multiply(self._padded(layout).one, super()._scale(value, layout))


class Int8OpenVINOOps(OpenVINOOps):
    """The same with the weights of matrix products in 8 bits, a scale for each row: `w = scale * round(w / scale)`.

    The product itself is computed from 8-bit activations if the model is compiled with a size for the groups in which
    they are quantized and the CPU has VNNI, else from the weights turned back.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._quantized: dict[ov.Node, ov.Node] = {}

    @property
    def group(self) -> int:
        """Activations to be quantized together: as much of a row as all products can have, or OpenVINO's default."""
        columns = math.gcd(*(weight.data.shape[1] for weight in self._quantized))
        return columns if columns and columns % GROUP_MULTIPLE == 0 else DEFAULT_GROUP

    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        if weight.raw.get_type_name() == "Constant" and len(weight.raw.data) >= FEWEST_ROWS:
            weight = Value(self._quantize(weight.raw))
        return super().linear(x, weight, bias)

    def _quantize(self, weight: ov.Node) -> ov.Node:
        if weight not in self._quantized:
            scale = np.maximum(np.abs(weight.data).max(1, keepdims=True) / np.float32(127), np.finfo(np.float32).tiny)
            small = op.constant(np.rint(weight.data / scale).astype(np.int8))
            self._quantized[weight] = op.multiply(op.convert(small, "f32"), op.constant(scale))
        return self._quantized[weight]
