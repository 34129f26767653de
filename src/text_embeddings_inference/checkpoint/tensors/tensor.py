"""A stored tensor: where its bytes lie, and how they become an array."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from ...types import BFLOAT16, as_float32
from ..files import DOWNLOAD_AGAIN, open_file

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""The types that can be read, by their names in safetensors files."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""The types of parameters."""


class Tensor(NamedTuple):
    """One tensor of a file, not read yet."""

    file: Path
    name: str
    """In the file."""

    dtype: str
    """A key of `NUMPY_TYPES`."""

    stored: NDArray[Any]
    """A view on the file's map, of the stored type; writes stay in this process until a release."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def array(self) -> NDArray[Any]:
        """The values, C-contiguous and aligned: floats as float32, integers and booleans as stored.

        A view on the file where nothing has to be converted, else a copy.
        """
        if self.dtype in FLOATS:
            return as_float32(self.stored)
        return np.require(self.stored, None, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


class MappedFile(mmap.mmap):
    """A file in memory, and what is known of it."""

    path: Path
    status: os.stat_result
    """As it was when it was mapped."""

    @property
    def address(self) -> int:
        """Where it begins."""
        return np.frombuffer(self, np.uint8).ctypes.data


class Span(NamedTuple):
    """A tensor's place in a map. All of it must be inside."""

    begin: int
    """Its first byte."""

    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    """In bytes; None: C order."""

    def tensor(self, file: Path, name: str, dtype: str, data: mmap.mmap) -> Tensor:
        try:
            stored: Any = np.ndarray(self.shape, NUMPY_TYPES[dtype], data, self.begin, self.strides)
        except (ValueError, OverflowError) as error:  # more than NumPy can count
            problem = f"{file}: tensor `{name}` has an impossible shape {self.shape}: {error}"
            raise CheckpointError(problem, hint=DOWNLOAD_AGAIN) from error
        return Tensor(file, name, dtype, stored)


def map_file(path: Path) -> MappedFile:
    """The whole file, mapped copy-on-write: nothing is read yet, and arrays on it are writable.

    Raises `CheckpointError` when the file can't be opened, is no regular file or is empty.
    """
    with open_file(path.parent, path.name) as file:
        try:
            data = MappedFile(file.fileno(), 0, access=mmap.ACCESS_COPY)
            data.path, data.status = path, os.fstat(file.fileno())
            return data
        except OSError as error:
            raise CheckpointError(f"Could not map {path}: {error.strerror}") from error
        except ValueError:  # an empty file can't be mapped
            raise CheckpointError(f"{path} is empty", hint=DOWNLOAD_AGAIN) from None


def way_out(data: mmap.mmap) -> str:
    """What to do about a file that does not begin as it should."""
    if data[:7] == b"version":
        return "this is a Git LFS pointer, not the file itself: run `git lfs pull` in the checkpoint's folder"
    return DOWNLOAD_AGAIN
