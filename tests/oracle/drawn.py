"""Weights that are drawn instead of stored: the same for a name and a shape, wherever they are drawn."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 50


def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 in steps of 1/256: matrices up to 0.5 in size, vectors (biases, norms) from 0.5 to 1.5."""
    rng = np.random.default_rng(crc32(name.removeprefix("model.").encode()))
    steps = rng.integers(-128, 129, shape) / 256
    return (steps if len(shape) > 1 else steps + 1).astype(np.float32)


def token_ids(length: int) -> NDArray[np.int32]:
    """Ids of `VOCABULARY` tokens, in no order; 0 is not among them, which pads in most models."""
    return np.random.default_rng(length).integers(1, VOCABULARY, length).astype(np.int32)


class DrawnTensors:
    """Tensors by name (see `parameters.Tensors`); shapes: by name, `{i}` for the number of one of `layers` layers."""

    def __init__(self, shapes: dict[str, list[int]], layers: int) -> None:
        self._shapes = {
            name.replace("{i}", str(i)): tuple(shape)
            for name, shape in shapes.items()
            for i in range(layers if "{i}" in name else 1)
        }

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def array(self, name: str) -> NDArray[np.float32]:
        return draw(name, self._shapes[name])
