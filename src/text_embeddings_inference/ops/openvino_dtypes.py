"""The operations as nodes of an OpenVINO graph, in the forms that float32 and 8-bit weights need."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .openvino import OpenVINOOps
from .openvino_library import op, ov
from .openvino_nodes import flatten
from .spec import Layout, Value

FEWEST_ROWS = 16
"""Smaller matrices are heads: their rows are what is asked for, and their products take no time."""
GROUP_MULTIPLE = 16
"""OpenVINO quantizes activations in groups of a multiple of it, or not at all."""
DEFAULT_GROUP = 32


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
