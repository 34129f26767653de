"""Weights as the kernels read them: packed once, shared by all products that have the same, in one piece of memory."""

from __future__ import annotations

import ctypes as c
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import as_float32
from .library import FORMATS, NUMBERS, CMatrix, CSource, Level
from .steps import Weights

INTEGERS = ("i16", "i8")
LINE = 64
"""Bytes of a cache line, at which every array begins."""
TASK_BYTES = 1 << 20
"""Of the panels that a thread packs at a time."""
RELEASED_BYTES = 32 << 20
"""Of panels that are packed before the memory of what they were made of is given back."""


@dataclass(slots=True)
class _Matrix:
    """The weights of a product, and where they lie in the memory."""

    raw: CMatrix
    weights: Weights
    places: dict[str, int]
    """Array of `raw` -> its first byte."""
    filled: int
    """Outputs, whole panels of them."""
    panels: int
    panel_bytes: int


class Packer:
    """Packs the weights of a plan's products for one level: first all are named, then they get memory."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._matrices: dict[object, _Matrix] = {}
        self._memory: mmap.mmap | None = None
        self.size = 0
        """Bytes of all together."""

    def matrix(self, weights: Weights, format_: str) -> CMatrix:
        """The weights as a matrix of C, which has no memory yet."""
        arrays = [array for array in (*weights.matrices, *weights.biases) if array is not None]
        key = (format_, *((a.ctypes.data, a.shape, a.strides, a.dtype.str) for a in arrays))
        if key not in self._matrices:
            self._matrices[key] = self._lay_out(weights, format_)
        return self._matrices[key].raw

    def place(self, memory: mmap.mmap, begin: int = 0) -> None:
        """The matrices lie in this memory from `begin` on, a multiple of `LINE`; it is kept until `close`."""
        self._memory = memory
        address = np.frombuffer(memory, np.uint8).ctypes.data + begin
        for matrix in self._matrices.values():
            for name, place in matrix.places.items():
                setattr(matrix.raw, name, address + place)

    def pack(self, threads: int, release: Callable[[], None] = lambda: None) -> None:
        """Packs what was named, on so many threads, into where it was placed, or else into memory of its own.

        release: gives back the memory of stored weights that were read; called now and then, while others are read.

        Raises MemoryError where there is too little."""
        if self._memory is None:
            self.place(mmap.mmap(-1, max(self.size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        with ThreadPoolExecutor(threads) as pool:
            tasks = {
                id(matrix): [pool.submit(self._pack, matrix, *part) for part in _parts(matrix)]
                for matrix in self._matrices.values()
            }
            packed = 0
            for matrix in self._matrices.values():
                matrix.raw.norm = max(task.result() for task in tasks[id(matrix)])
                packed += matrix.panels * matrix.panel_bytes
                if packed >= RELEASED_BYTES:
                    release()
                    packed = 0

    def write(self, write: Callable[[mmap.mmap], None]) -> None:
        """Has the memory written to a file, unless it was given back."""
        if (memory := self._memory) is not None:
            write(memory)

    def clear(self) -> None:
        """Forgets what was named."""
        self._matrices.clear()
        self.size = 0

    def close(self) -> None:
        """Gives back the memory; no matrix may be in use."""
        self._memory = None

    def _lay_out(self, weights: Weights, format_: str) -> _Matrix:
        group, panel = self._level.group(format_), self._level.panel
        inputs, outputs = weights.matrices[0].shape[1], weights.outputs
        groups, panels = -(-inputs // group), -(-outputs // panel)
        filled = panels * panel
        panel_bytes = panel * groups * (2 if format_ == "f32_b16" else 4)  # of a group
        sizes = {"panels": panels * panel_bytes}
        if any(bias is not None for bias in weights.biases):
            sizes["bias"] = 4 * filled
        if format_ in INTEGERS:
            sizes |= {"scale": 4 * filled, "sums": 4 * filled}
        places = {}
        for name, size in sizes.items():
            places[name] = self.size
            self.size += -(-size // LINE) * LINE
        return _Matrix(
            CMatrix(FORMATS.index(format_), inputs, outputs, groups), weights, places, filled, panels, panel_bytes
        )

    def _pack(self, matrix: _Matrix, first: int, last: int) -> float:
        """Panels from one to before another; the bias with the first one. Returns the norm of these panels."""
        if first == 0 and "bias" in matrix.places:
            biases = zip(matrix.weights.matrices, matrix.weights.biases, strict=True)
            parts = [np.zeros(len(w), np.float32) if bias is None else as_float32(bias) for w, bias in biases]
            whole = np.concatenate([*parts, np.zeros(matrix.filled - matrix.raw.outputs, np.float32)])
            c.memmove(matrix.raw.bias, whole.ctypes.data, whole.nbytes)
        sources = (CSource * len(matrix.weights.matrices))(*map(_source, matrix.weights.matrices))
        norm = c.c_float()
        library, level = self._level.library, self._level.pointer
        if problem := library.tei_pack(level, c.byref(matrix.raw), sources, first, last, c.byref(norm)):
            raise MemoryError(f"weights can't be packed: {os.strerror(problem)}")
        return norm.value


def _parts(matrix: _Matrix) -> Iterator[tuple[int, int]]:
    """Ranges of panels, each of about TASK_BYTES."""
    parts = min(matrix.panels, -(-matrix.panels * matrix.panel_bytes // TASK_BYTES))
    return pairwise(matrix.panels * part // parts for part in range(parts + 1))


def _source(array: NDArray[Any]) -> CSource:
    """A matrix of the checkpoint, as it is stored."""
    return CSource(array.ctypes.data, *array.strides, NUMBERS[array.dtype], len(array))
