"""In which numbers each product is computed, by the engine's dtype and what the level has kernels for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..ops.native import Rows
from ..types import BFLOAT16
from .library import Level
from .steps import Op, Step

DTYPES = {"float32": "f32", "bfloat16": "bf16", "int16": "i16", "int8": "i8"}
"""The format of an engine's products, by its dtype."""
EXACT = ("f32", "f32_b16")
"""Formats that round no inputs."""
MOST_INPUTS = (2**31 - 1) // (255 * 127)
"""Of a product of 8-bit integers: sums of more could leave 32 bits. Those of 16 bits have finer or coarser scales."""
MOST_LOSS = {"i16": 1e-4, "i8": 2e-2}
"""Of all products together, the squares of their relative errors summed: 1 - cosine of a vector is a fraction of it
(docs/log.md). What would exceed it is computed in a better format."""


def choose_dtype(level: Level, wanted: str) -> str | None:
    """The dtype that is asked for, None where the level has no kernels for it; `auto` is bfloat16 where there are
    instructions for it, else int16 where there are such, else float32."""
    if wanted == "auto":
        found = ("bf16", "bfloat16"), ("i16", "int16")
        return next((dtype for format_, dtype in found if level.group(format_)), "float32")
    return wanted if wanted == "bfloat16" or level.group(DTYPES[wanted]) else None


class Formats:
    """Chooses the format of each product."""

    def __init__(self, level: Level, dtype: str) -> None:
        """Raises UnsupportedError for a dtype that the level has no kernels for.

        bfloat16 always has one: without instructions for it the weights take 16 bits and are computed with in float32.
        """
        wanted = DTYPES.get(dtype)
        if wanted is None or not (level.group(wanted) or wanted == "bf16"):
            found = ", ".join(name for name, format_ in DTYPES.items() if level.group(format_) or format_ == "bf16")
            raise UnsupportedError(f"`--dtype {dtype}`: the kernels `{level.name}` have {found}", hint="use another")
        self.dtype = dtype
        self.wanted = wanted if level.group(wanted) else "f32_b16"
        """The format of most products."""
        self.half = self.wanted not in EXACT and level.group("bf16") > 0
        """Whether attention multiplies in bfloat16."""
        self.most_loss = MOST_LOSS.get(self.wanted)
        """Of a plan in these formats, see `limit`; None: what they lose is not asked."""
        wide = [format_ for format_ in ("bf16", "i16") if level.group(format_)]
        self.better = [*wide, "f32"][0] if self.wanted == "i8" else "f32"
        """The format of those that lose too much by it."""

    def __call__(self, step: Step) -> str:
        """The format of a product. What comes after pooling is computed in float32: it costs nothing. Experts, whose
        losses are not measured, have the better format."""
        if self.wanted == "f32" or step.out.store.rows is Rows.SEQUENCES:
            return _exact(step)
        if step.op is Op.EXPERTS and self.most_loss is not None:
            return self._in_better(step)
        if self.wanted == "i8" and step.weights[0].matrices[0].shape[1] > MOST_INPUTS:
            return self._in_better(step)
        return self.wanted

    def limit(self, products: Sequence[Step], losses: Sequence[float]) -> tuple[str, ...]:
        """The formats of a plan's products, those that lose most in a better one, so that all together lose no more
        than `most_loss`. Products of the same weights, which are packed once, have the same.

        losses: of each product, see `probe.measure_losses`."""
        assert self.most_loss is not None
        squares: defaultdict[tuple[object, ...], float] = defaultdict(float)
        for step, loss in zip(products, losses, strict=True):
            squares[_identity(step)] += loss**2
        left, better = sum(squares.values()), set()
        for weights in sorted(squares, key=lambda weights: -squares[weights]):
            if left <= self.most_loss:
                break
            better.add(weights)
            left = sum(loss for others, loss in squares.items() if others not in better)
        return tuple(self._in_better(step) if _identity(step) in better else self(step) for step in products)

    def _in_better(self, step: Step) -> str:
        return _exact(step) if self.better == "f32" else self.better


def _exact(step: Step) -> str:
    return "f32_b16" if all(_is_b16(matrix) for matrix in step.constants[0].matrices) else "f32"


def _identity(step: Step) -> tuple[object, ...]:
    """Of a product's weights."""
    return tuple((matrix.ctypes.data, matrix.shape) for matrix in step.constants[0].matrices)


def _is_b16(matrix: NDArray[Any]) -> bool:
    """Whether the numbers are bfloat16 ones, stored in it or in float32: then 16 bits hold them exactly."""
    if matrix.dtype != np.float32:
        return matrix.dtype == BFLOAT16
    starts = range(0, len(matrix), 64)  # a few rows tell, mostly
    return all(not (matrix[row : row + 64].view(np.uint32) & 0xFFFF).any() for row in starts)
