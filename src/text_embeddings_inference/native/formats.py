"""In which numbers each product is computed, by the engine's dtype and what the level has kernels for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..ops.native import Rows
from ..types import BFLOAT16
from .library import Level
from .steps import Step

DTYPES = {"float32": "f32", "bfloat16": "bf16", "int16": "i16", "int8": "i8"}
"""The format of an engine's products, by its dtype."""


def choose_dtype(level: Level, wanted: str) -> str | None:
    """The dtype that is asked for, None where the level has no kernels for it; `auto` is bfloat16 where there are
    instructions for it, else float32."""
    if wanted == "auto":
        return "bfloat16" if level.group("bf16") else "float32"
    return wanted if wanted == "bfloat16" or level.group(DTYPES[wanted]) else None


class Formats:
    """Chooses the format of each product."""

    def __init__(self, level: Level, dtype: str) -> None:
        """Raises UnsupportedError for a dtype that the level has no kernels for.

        bfloat16 always has one: without instructions for it the weights take 16 bits and are computed with in float32.
        """
        self.dtype = dtype
        wanted = DTYPES.get(dtype)
        if wanted is None or not (level.group(wanted) or wanted == "bf16"):
            found = ", ".join(name for name, format_ in DTYPES.items() if level.group(format_) or format_ == "bf16")
            raise UnsupportedError(f"`--dtype {dtype}`: the kernels `{level.name}` have {found}", hint="use another")
        self._wanted = wanted if level.group(wanted) else "f32_b16"
        self.is_rough = self._wanted not in ("f32", "f32_b16")
        """Whether the inputs of products are rounded."""
        self.half = self.is_rough and level.group("bf16") > 0
        """Whether attention multiplies in bfloat16."""

    def __call__(self, step: Step) -> str:
        """The format of a product. What comes after pooling is computed in float32: it costs nothing."""
        if self._wanted == "f32" or step.out.store.rows is Rows.SEQUENCES:
            return "f32_b16" if all(_is_b16(matrix) for matrix in step.constants[0].matrices) else "f32"
        return self._wanted


def _is_b16(matrix: NDArray[Any]) -> bool:
    """Whether the numbers are bfloat16 ones, stored in it or in float32: then 16 bits hold them exactly."""
    if matrix.dtype != np.float32:
        return matrix.dtype == BFLOAT16
    starts = range(0, len(matrix), 64)  # a few rows tell, mostly
    return all(not (matrix[row : row + 64].view(np.uint32) & 0xFFFF).any() for row in starts)
