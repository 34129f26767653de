"""Where the sequences of a padded batch end, as nodes of an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from .openvino_library import op, ov
from .openvino_nodes import float32, int64, int64_scalar, slopes, unsqueeze
from .spec import AttentionSpec, Rope

HIDDEN = -1e9
"""Added to a score that must not count: finite, so that a row with nothing to see stays finite too."""


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
        return op.range(int64_scalar(0), self.width, int64_scalar(1), output_type="i32")

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
        return op.reduce_max(self.kept, int64(0, 1), False)

    @cached_property
    def padding_bias(self) -> ov.Node:
        """0 for a token, `HIDDEN` for padding: float32 `[B, S]`."""
        return op.multiply(op.subtract(float32(1), self.kept), float32(HIDDEN))

    @cached_property
    def key_bias(self) -> ov.Node:
        """0 for a token that is seen in attention, `HIDDEN` for others and for padding: float32 `[B, S]`."""
        if self._attended is self.lengths:
            return self.padding_bias
        return op.multiply(op.subtract(float32(1), self.seen), float32(HIDDEN))

    def _before(self, ends: ov.Node) -> ov.Node:
        """1 for the places before each row's end, 0 for others: float32 `[B, S]`."""
        return op.convert(op.less(unsqueeze(self.indices, 0), unsqueeze(ends, 1)), "f32")

    def sees(self, spec: AttentionSpec) -> ov.Node | None:
        """1 for a token that sees another, 0 where the window ends before those that are attended: float32
        `[B, 1, S, 1]`; None: all see one."""
        if self._attended is self.lengths or spec.window is None:
            return None
        return unsqueeze(self._before(op.add(self._attended, op.constant(np.int32(spec.window)))), 1, 3)

    def attention_bias(self, spec: AttentionSpec) -> ov.Node:
        """What is added to the scores: float32, broadcasts to `[B, N, S, S]`; with ALiBi divided by the slopes."""
        if spec not in self._attention_biases:
            bias = unsqueeze(self.key_bias, 1, 2)
            if spec.causal or spec.window is not None or spec.bias is not None or spec.alibi is not None:
                bias = op.add(bias, self._distance_bias(spec))
            self._attention_biases[spec] = bias
        return self._attention_biases[spec]

    def _distance_bias(self, spec: AttentionSpec) -> ov.Node:
        """The part that depends on how far the key lies after the query: `[N or 1, S, S]`."""
        keys, queries = unsqueeze(self.indices, 0), unsqueeze(self.indices, 1)
        distance = op.subtract(keys, queries)
        hidden = []
        if spec.causal:
            hidden.append(op.convert(op.greater(distance, op.constant(np.int32(0))), "f32"))
        if spec.window is not None:
            hidden.append(op.convert(op.greater(op.abs(distance), op.constant(np.int32(spec.window))), "f32"))
        biases = [unsqueeze(op.multiply(term, float32(HIDDEN)), 0) for term in hidden]
        if spec.bias is not None:
            reach = spec.bias.reach
            row = op.add(op.clamp(distance, float(-reach), float(reach)), op.constant(np.int32(reach)))
            by_head = op.transpose(op.gather(spec.bias.table.raw, row, int64_scalar(0)), int64(2, 0, 1))
            biases.append(by_head if spec.alibi is None else op.divide(by_head, slopes(spec.alibi)))
        if spec.alibi is not None:
            biases.append(unsqueeze(op.convert(op.negative(op.abs(distance)), "f32"), 0))
        return reduce(op.add, biases)

    def rows_by_distance(self, rows: NDArray[np.int32]) -> tuple[ov.Node, ov.Node]:
        """Of `DisentangledSpec.rows`, those for the distances S - 1, ..., -S, and for 1 - S, ..., S: int32 `[2S]`."""
        if id(rows) not in self._rows:  # the layers of a model share one array, which the graph keeps alive
            reach, width, one = len(rows) // 2, op.convert(self.width, "i32"), op.constant(np.int32(1))
            rising = op.range(op.subtract(one, width), op.add(width, one), one, output_type="i32")
            falling, rising = (
                op.add(op.clamp(d, -reach, reach), op.constant(np.int32(reach))) for d in (op.negative(rising), rising)
            )
            table, axis = op.constant(rows), int64_scalar(0)
            self._rows[id(rows)] = op.gather(table, falling, axis), op.gather(table, rising, axis)
        return self._rows[id(rows)]

    def skew(self, x: ov.Node) -> ov.Node:
        """`[B, N, S, 2S]` -> `[B, N, S, S]`: row i of the result is its row i from column S - 1 - i on.

        The trick of Transformer-XL (Dai et al., arXiv:1901.02860): read the rows one after another and fold them into
        rows that are one shorter, and each begins one column earlier than the row above.
        """
        width, last = unsqueeze(self.width, 0), int64(-1)
        start = op.subtract(width, int64(1))
        end = op.add(start, op.multiply(width, op.add(width, start)))
        flat = op.slice(op.reshape(x, int64(0, 0, -1), True), start, end, int64(1), last)
        folded = op.reshape(flat, op.concat([int64(0, 0), width, last], 0), True)
        return op.slice(folded, int64(0), width, int64(1), last)

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
            cos, sin = (op.gather(both, int64_scalar(i), int64_scalar(0)) for i in range(2))
        else:
            tables = np.tile(rope.table(max_length), 2)
            rows = (op.gather(op.constant(table), self.indices, int64_scalar(0)) for table in tables)
            cos, sin = (unsqueeze(row, 0, 2) for row in rows)
        self._rotations[rope] = cos, sin
        return cos, sin


def rotate_by_length(rope: Rope, lengths: Sequence[int], width: int) -> NDArray[np.float32]:
    """Cosine and sine for a padded batch, each row by its own length: `[2, 1 or B, S, 1, R]`."""
    if not rope.depends_on_length(max(lengths)):
        lengths = lengths[:1]  # as any other
    by_row = np.stack([rope.table(length, width) for length in lengths], 1)
    return np.tile(by_row, 2)[:, :, :, None]
