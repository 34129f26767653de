"""The files of a checkpoint, opened with care: regular files inside of its folder, of no more bytes than they need.

A folder may come from anywhere. A pipe or a device in place of a file would hang the start, a link could show another
file of the machine, and a file may be larger than the memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ..errors import CheckpointError

MAX_JSON_BYTES = 20_000_000
"""Of a JSON file with settings, or with the names of tensors: the largest that are known have half of it. Parsed it
takes up to thirty times as much memory."""

MAX_TOKENIZER_BYTES = 300_000_000
"""Of a tokenizer.json; those of the largest vocabularies have 35 MB."""

DOWNLOAD_AGAIN = "download the checkpoint again"


def open_file(folder: Path, name: str) -> IO[bytes]:
    """The file `folder/name`, for reading. Raises `CheckpointError` when there is none, or it is no regular file."""
    try:
        file = os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise CheckpointError(f"`{name}` not found in {folder}", hint=DOWNLOAD_AGAIN) from None
    except IsADirectoryError:
        raise CheckpointError(f"`{name}` in {folder} is a folder, not a file", hint=DOWNLOAD_AGAIN) from None
    except OSError as error:
        raise CheckpointError(f"Could not open `{name}` in {folder}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CheckpointError(f"`{name}` in {folder} is no regular file", hint=DOWNLOAD_AGAIN)
    return file


def read_file(folder: Path, name: str, limit: int) -> bytes:
    """All bytes of the file. Raises `CheckpointError` as `open_file`, and for more than `limit` bytes."""
    with open_file(folder, name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise CheckpointError(f"`{name}` in {folder} is too large: more than {limit} bytes", hint=DOWNLOAD_AGAIN)
    return content


def check_file(folder: Path, name: str, limit: int) -> None:
    """Raises `CheckpointError` as `read_file`, without reading the file."""
    with open_file(folder, name) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise CheckpointError(f"`{name}` in {folder} is too large: more than {limit} bytes", hint=DOWNLOAD_AGAIN)


def check_links(folder: Path, names: Iterable[str], linked: Path | None = None) -> None:
    """Raises `CheckpointError` for a file whose link leads out of the folder.

    The folder may be a link itself. Those of the Hub's cache lead to the blobs of their repository, or of the cache.
    names: relative to the folder; linked: another folder that links may lead to.
    """
    inside = _allowed(folder) + ([] if linked is None else [linked.resolve()])
    for name in names:
        target = (folder / name).resolve()
        if not any(target.is_relative_to(root) for root in inside):
            raise CheckpointError(
                f"`{name}` in {folder} is a link to {target}, which is outside of the checkpoint",
                hint="put the file itself there; the whole folder may be a link",
            )


def _allowed(folder: Path) -> list[Path]:
    real = folder.resolve()
    repository = real.parent.parent
    if real.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return [real]
    return [real, (repository / "blobs").resolve(), (repository.parent / "blobs").resolve()]
