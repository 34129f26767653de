"""Weights as the kernels read them: packed once, shared by all products that have the same."""

from __future__ import annotations

import ctypes as c
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .library import FORMATS, CMatrix, Level
from .steps import Weights

INTEGERS = ("i16", "i8")


class Packer:
    """Packs weights for one level, and keeps what it packed. What is asked for is packed by `finish`, all at once."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._packed: dict[tuple[object, ...], CMatrix] = {}
        self._kept: list[NDArray[Any]] = []
        self._pending: list[tuple[CMatrix, Weights]] = []

    def matrix(self, weights: Weights, format_: str) -> CMatrix:
        """The weights as a matrix of C, to be packed."""
        key = (format_, *(id(matrix) for matrix in weights.matrices))
        if key not in self._packed:
            self._kept += weights.matrices  # or another array might get the same id
            self._packed[key] = self._prepare(weights, format_)
            self._pending.append((self._packed[key], weights))
        return self._packed[key]

    def finish(self, threads: int) -> None:
        """Packs what was asked for, on so many threads."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda one: self._pack(*one), self._pending))
        self._pending.clear()

    def _pack(self, matrix: CMatrix, weights: Weights) -> None:
        whole = weights.matrices[0] if len(weights.matrices) == 1 else np.concatenate(weights.matrices)
        self._level.library.tei_pack(self._level.pointer, whole.ctypes.data, c.byref(matrix))

    def _prepare(self, weights: Weights, format_: str) -> CMatrix:
        group, panel = self._level.group(format_), self._level.panel
        inputs, outputs = weights.matrices[0].shape[1], weights.outputs
        groups, filled = -(-inputs // group), -(-outputs // panel) * panel
        size = 2 if format_ == "f32_b16" else 4  # bytes of a group
        matrix = CMatrix(FORMATS.index(format_), inputs, outputs, groups)
        matrix.panels = self._keep(_aligned(filled * groups * size))
        if any(bias is not None for bias in weights.biases):
            bias = np.zeros(filled, np.float32)
            bias[:outputs] = np.concatenate(
                [
                    np.zeros(len(matrix), np.float32) if bias is None else bias
                    for matrix, bias in zip(weights.matrices, weights.biases, strict=True)
                ]
            )
            matrix.bias = self._keep(bias)
        if format_ in INTEGERS:
            matrix.scale, matrix.sums = self._keep(np.zeros(filled, np.float32)), self._keep(np.zeros(filled, np.int32))
        return matrix

    def _keep(self, array: NDArray[Any]) -> int:
        self._kept.append(array)
        return array.ctypes.data


def _aligned(size: int) -> NDArray[np.uint8]:
    """Memory that begins at a cache line."""
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size]
