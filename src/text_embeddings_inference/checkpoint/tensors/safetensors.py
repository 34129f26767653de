"""Reads safetensors files: https://github.com/huggingface/safetensors#format

Eight bytes give the length of the header (little-endian), the header is JSON, `{name: {"dtype", "shape",
"data_offsets": [begin, end]}}` with offsets from the end of the header, and the rest is tensors one after another,
without gaps.
"""

from __future__ import annotations

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from ...errors import CheckpointError, UnsupportedError
from ..files import DOWNLOAD_AGAIN, MAX_JSON_BYTES
from ..json_files import describe, is_integer
from .tensor import NUMPY_TYPES, Span, Tensor, way_out


def read_safetensors(path: Path, data: mmap.mmap) -> list[Tensor]:
    """The tensors of the file `path`, mapped as `data`, in the order in which they are stored.

    Raises `CheckpointError` for a file that is cut off or breaks the format, and `UnsupportedError` for types that
    can't be read (float8, ...).
    """
    header, start = _read_header(path, data)
    entries = [_Entry(path, name, fields) for name, fields in header.items() if name != "__metadata__"]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    end = 0
    for entry in entries:
        if start + entry.end > len(data):
            missing = start + entry.end - len(data)
            _fail(path, entry.name, f"lies past the end of the file: {missing} bytes are missing")
        if entry.begin != end:
            problem = "overlaps the tensor before it" if entry.begin < end else "leaves a gap before it"
            _fail(path, entry.name, f"{problem}: it begins at {entry.begin}, not {end}")
        end = entry.end
    if start + end != len(data):
        raise CheckpointError(f"{path}: {len(data) - start - end} bytes after the last tensor", hint=DOWNLOAD_AGAIN)
    return [entry.tensor(data, start) for entry in entries]


def _read_header(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header and where the tensors begin."""
    if len(data) < 8:
        raise CheckpointError(
            f"{path} is cut off: {len(data)} bytes, the header's length alone needs 8", hint=DOWNLOAD_AGAIN
        )
    length = int.from_bytes(data[:8], "little")
    if length > MAX_JSON_BYTES:
        problem = f"{path} is no safetensors file: a header of {length} bytes (at most {MAX_JSON_BYTES})"
        raise CheckpointError(problem, hint=way_out(data))
    if 8 + length > len(data):
        problem = f"{path} is cut off: its header alone needs {8 + length} bytes, the file has {len(data)}"
        raise CheckpointError(problem, hint=DOWNLOAD_AGAIN)
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is no JSON: {error}", hint=DOWNLOAD_AGAIN) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no object: {describe(header)}", hint=DOWNLOAD_AGAIN)
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key is there twice")
    return unique


def _fail(path: Path, name: str, problem: str) -> NoReturn:
    raise CheckpointError(f"{path}: tensor `{name}` {problem}", hint=DOWNLOAD_AGAIN)


class _Entry:
    """One checked entry of the header; begin and end count from the end of the header."""

    def __init__(self, path: Path, name: str, fields: Any) -> None:
        if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
            _fail(path, name, f"is not described by dtype, shape and data_offsets: {describe(fields)}")
        self.path, self.name = path, name
        self.dtype, self.shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not _are_sizes(self.shape):
            _fail(path, name, f"has no valid shape: {describe(self.shape)}")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            _fail(path, name, f"has no valid offsets: {describe(offsets)}")
        if not isinstance(self.dtype, str) or self.dtype not in NUMPY_TYPES:
            problem = f"{path}: tensor `{name}` is stored as {describe(self.dtype)}, which is not supported"
            raise UnsupportedError(problem, hint="use the checkpoint in float32, float16 or bfloat16")
        self.begin, self.end = offsets
        size = prod(self.shape) * NUMPY_TYPES[self.dtype].itemsize
        if size != self.end - self.begin:
            _fail(
                path,
                name,
                f"of type {self.dtype} and shape {self.shape} needs {size} bytes, has {self.end - self.begin}",
            )

    def tensor(self, data: mmap.mmap, start: int) -> Tensor:
        return Span(start + self.begin, tuple(self.shape)).tensor(self.path, self.name, self.dtype, data)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(is_integer(value) and value >= 0 for value in values)
