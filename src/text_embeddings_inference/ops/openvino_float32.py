"""The operations as nodes of an OpenVINO graph that computes in float32."""

from __future__ import annotations

from collections.abc import Callable

from .openvino import OpenVINOOps, flatten
from .openvino_library import op, ov
from .spec import Layout, Value


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
