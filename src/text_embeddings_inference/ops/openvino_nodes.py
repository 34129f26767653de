"""Small nodes of an OpenVINO graph that are made again and again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .openvino_library import op, ov


def int64(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def int64_scalar(value: int) -> ov.Node:
    return op.constant(np.array(value, np.int64))


def float32(value: float) -> ov.Node:
    return op.constant(np.array(value, np.float32))


def unsqueeze(node: ov.Node, *axes: int) -> ov.Node:
    return op.unsqueeze(node, int64(*axes))


def shape(x: ov.Node | ov.Output) -> ov.PartialShape:
    """Of a node with one output, or of one output of a node that has several."""
    return x.get_partial_shape() if isinstance(x, ov.Output) else x.get_output_partial_shape(0)


def flatten(x: ov.Node | ov.Output) -> ov.Node:
    """`[*, D]` -> `[T, D]`."""
    return op.reshape(x, int64(-1, shape(x)[-1].get_length()), False)


def slopes(alibi: Sequence[float]) -> ov.Node:
    """`[N, 1, 1]`."""
    return op.constant(np.array(alibi, np.float32).reshape(-1, 1, 1))


def channels(x: ov.Node, first: int, end: int) -> ov.Node:
    """A part of the last axis of `[B, S, N, H]`."""
    return op.slice(x, int64(first), int64(end), int64(1), int64(3))


def repeat_heads(x: ov.Node, n: int) -> ov.Node:
    """`[B, N', S, H]` -> `[B, n, S, H]`: each head serves n / N' neighbouring heads of queries."""
    own = int(shape(x)[1].get_length())
    if own == n:
        return x
    assert n % own == 0
    return op.gather(x, int64(*np.repeat(np.arange(own), n // own)), int64_scalar(1))
