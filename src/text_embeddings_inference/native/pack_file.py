"""Packed weights as a file: a header that says what they are, then the memory of a `Packer` as it is.

    magic, version, number of products, bytes of the data, key, checksum of the data
    for each product: its format and its norm
    checksum of all that
    at a multiple of PAGE: the data

The key says what the weights were made of (`packs.py`). Whoever can write into the folder can change what a model
computes, but not where the kernels read and write: the places of all arrays are computed anew, not read.
"""

from __future__ import annotations

import ctypes as c
import hashlib
import mmap
import os
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .folder import unfinished
from .library import FORMATS

MAGIC = b"TEIPACK\0"
VERSION = 1
HEAD = struct.Struct("<8sIIQ32s16s")
PRODUCT = struct.Struct("<If")
SUM_BYTES = 16
PAGE = 1 << 16
"""Bytes: a multiple of every system's pages."""
CHUNK_BYTES = 4 << 20
"""Of the data, summed up by one thread."""
WRITE_BYTES = 64 << 20


class ForeignError(Exception):
    """A file that does not have the packed weights that were looked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Packed weights from a file."""

    formats: list[str]
    """Of each product."""
    norms: list[float]
    memory: mmap.mmap
    """The whole file."""
    begin: int
    """Where the data begins in it."""


def read_pack(library: c.CDLL, path: Path, key: bytes, products: int, threads: int) -> Pack:
    """The file's packed weights, mapped and not copied.

    Every byte is looked at: a damaged model gives wrong vectors, and the pages are needed anyway. Raises ForeignError,
    and OSError where it can't be read."""
    begin = _begin(products)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= begin:
            raise ForeignError(f"it has {size} bytes")
        memory = mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
    head = memory[: HEAD.size + products * PRODUCT.size]
    magic, version, count, data, own_key, checksum = HEAD.unpack_from(head)
    if magic != MAGIC or version != VERSION:
        raise ForeignError("it is no file of this version")
    if memory[len(head) : len(head) + SUM_BYTES] != _sum(head) or count != products:
        raise ForeignError("its header is damaged")
    if own_key != key:
        raise ForeignError("it was made of something else")
    if size != begin + data:
        raise ForeignError(f"it has {size} bytes, not {begin + data}")
    if checksum != _checksum(library, _address(memory) + begin, data, threads):
        raise ForeignError("its weights are damaged")
    rows = list(PRODUCT.iter_unpack(head[HEAD.size :]))
    if any(number >= len(FORMATS) for number, _ in rows):
        raise ForeignError("it has unknown formats")
    return Pack([FORMATS[number] for number, _ in rows], [norm for _, norm in rows], memory, begin)


def write_pack(
    library: c.CDLL, path: Path, key: bytes, products: Sequence[tuple[str, float]], memory: mmap.mmap, threads: int
) -> None:
    """Writes packed weights to a file, which appears when it is complete, and then lets `memory` be the file's pages,
    so that processes that map it share them.

    products: format and norm of each; memory: private, from the first byte on. Raises OSError."""
    address = _address(memory)
    checksum = _checksum(library, address, len(memory), threads)
    rows = b"".join(PRODUCT.pack(FORMATS.index(format_), norm) for format_, norm in products)
    head = HEAD.pack(MAGIC, VERSION, len(products), len(memory), key, checksum) + rows
    begin = _begin(len(products))
    with unfinished(path.parent) as draft, draft.open("x+b", buffering=0) as file:
        file.write((head + _sum(head)).ljust(begin, b"\0"))
        whole = memoryview(memory)
        for start in range(0, len(memory), WRITE_BYTES):
            part = whole[start : start + WRITE_BYTES]
            while part:
                part = part[file.write(part) :]
        os.fsync(file.fileno())
        os.replace(draft, path)
        _map_over(address, len(memory), file.fileno(), begin)


def _begin(products: int) -> int:
    """Where the data begins."""
    return -(-(HEAD.size + products * PRODUCT.size + SUM_BYTES) // PAGE) * PAGE


def _sum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=SUM_BYTES).digest()


def _checksum(library: c.CDLL, address: int, size: int, threads: int) -> bytes:
    """Of the data: no proof against forgery, but as fast as memory is read."""
    starts = range(0, size, CHUNK_BYTES)
    with ThreadPoolExecutor(threads) as pool:
        sums = list(
            pool.map(lambda begin: library.tei_checksum(address + begin, min(CHUNK_BYTES, size - begin)), starts)
        )
    return _sum(np.array(sums, np.uint64).tobytes())


def _address(memory: mmap.mmap) -> int:
    return np.frombuffer(memory, np.uint8).ctypes.data


MAP_FIXED = 0x10


def _map_over(address: int, size: int, descriptor: int, begin: int) -> None:
    """Puts the file's pages in place of memory with the same content, at once: whoever reads there goes on reading.

    Where that fails the memory stays as it is."""
    if sys.platform != "linux":
        return
    library = c.CDLL(None, use_errno=True)
    library.mmap.restype = c.c_void_p
    library.mmap.argtypes = [c.c_void_p, c.c_size_t, c.c_int, c.c_int, c.c_int, c.c_long]
    library.mmap(address, size, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, descriptor, begin)
