"""The operations as nodes of an OpenVINO graph that computes in float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino as ov
from openvino import opset15 as op

from .openvino import OpenVINOOps, partial_shape
from .spec import Layout, Value


class Float32OpenVINOOps(OpenVINOOps):
    """The same with nothing fused into matrix products but biases.

    OpenVINO gives such products to MLAS, others to oneDNN, which is slower in float32 and rearranges the weights twice,
    for short batches and for long ones (docs/log.md).
    """

    def _activate(self, x: Value, activation: Callable[[ov.Node], ov.Node]) -> Value:
        """In another shape than the product's, for OpenVINO fuses only what has the same."""
        shape = partial_shape(x.raw)
        if len(shape) == 2:
            return super()._activate(x, activation)  # of pooled vectors: too small to matter
        flat = op.reshape(x.raw, op.constant(np.array([-1, shape[-1].get_length()], np.int64)), False)
        return Value(op.reshape(activation(flat), op.shape_of(x.raw), False))

    def _scale(self, value: float, layout: Layout) -> ov.Node:
        """Times a 1 that is computed: a constant would be moved up into the product that makes the keys."""
        return op.multiply(self._padded(layout).one, super()._scale(value, layout))
