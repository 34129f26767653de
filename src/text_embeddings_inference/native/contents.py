"""What a file of weights contains, as one short text: read once, and remembered as long as the file is not touched."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from .folder import write_whole

CHUNK_BYTES = 16 << 20
"""Of a file, hashed by one thread."""
READ_BYTES = 1 << 20
SETTLED_SECONDS = 2.0
"""A file that was changed less long ago may be changed again without a new time of change (coarse clocks)."""


class File(Protocol):
    """A file that is mapped (`checkpoint.MappedFile`)."""

    path: Path
    status: os.stat_result
    """As it was when it was mapped."""

    @property
    def address(self) -> int: ...

    def __len__(self) -> int: ...

    def madvise(self, option: int) -> None: ...


def remembered(folder: Path, file: File) -> str | None:
    """The digest of the file's content, if it was read before and is still the same file, not written to since.

    That is told by size, number, time of writing and time of change: of these the last is the system's own, set at
    every write and not to be set by programs.
    """
    try:
        *status, digest = json.loads(_note(folder, file).read_text())
    except (OSError, ValueError):
        return None
    return str(digest) if tuple(status) == _identity(file.status) else None


def read(folder: Path, file: File, threads: int) -> str:
    """The digest of the file's content: SHA-256 of the SHA-256 of each CHUNK_BYTES. It is noted in the folder.

    Raises OSError where the file can't be read any more, or is not the one that was mapped."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _identity(os.fstat(descriptor)) != _identity(file.status):
            raise OSError(f"{file.path} was changed while it was loaded")
        with ThreadPoolExecutor(threads) as pool:
            starts = range(0, len(file), CHUNK_BYTES)
            parts = list(pool.map(lambda begin: _hash(descriptor, begin, min(CHUNK_BYTES, len(file) - begin)), starts))
        settled = time.time() - max(file.status.st_mtime, file.status.st_ctime) > SETTLED_SECONDS
        if _identity(os.fstat(descriptor)) != _identity(file.status):
            raise OSError(f"{file.path} was changed while it was read")
    finally:
        os.close(descriptor)
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    if settled:
        write_whole(_note(folder, file), json.dumps([*_identity(file.status), digest]).encode())
    return digest


def _hash(descriptor: int, begin: int, size: int) -> bytes:
    """Of so many bytes of a file. Not through its map, whose pages would count as this process's memory."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(READ_BYTES))
    while size:
        count = os.preadv(descriptor, [buffer[: min(size, READ_BYTES)]], begin)
        if count == 0:
            raise OSError("the file has become shorter")
        digest.update(buffer[:count])
        begin, size = begin + count, size - count
    return digest.digest()


def _identity(status: os.stat_result) -> Sequence[int]:
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _note(folder: Path, file: File) -> Path:
    name = hashlib.sha256(os.fsencode(file.path.resolve())).hexdigest()[:16]
    return folder / f"weights-{name}.content"
