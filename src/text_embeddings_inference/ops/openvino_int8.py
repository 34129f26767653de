"""The operations as nodes of an OpenVINO graph, products with 8-bit weights."""

from __future__ import annotations

import math

import numpy as np

from .openvino import OpenVINOOps
from .openvino_library import op, ov
from .spec import Value

FEWEST_ROWS = 16
"""Smaller matrices are heads: their rows are what is asked for, and their products take no time."""
GROUP_MULTIPLE = 16
"""OpenVINO quantizes activations in groups of a multiple of it, or not at all."""
DEFAULT_GROUP = 32


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
