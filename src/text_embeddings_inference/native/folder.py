"""The folder that compiled kernels and packed weights are kept in, shared by all processes of a user."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

KEPT_BYTES = 20 << 30
"""Of packed weights; the ones used last stay."""
KEPT_SECONDS = 60 * 86400
"""Files that were not used for so long are removed."""
UNFINISHED_SECONDS = 3600
"""A file that is not finished after so long never will be."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file, which appears when it is complete. Raises OSError."""
    with unfinished(path.parent) as draft:
        draft.write_bytes(content)
        os.replace(draft, path)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """The name of a new file in the folder, which is made if need be. Removed if it is still there at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".native-{os.getpid()}-{secrets.token_hex(4)}.unfinished"
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Notes that the file is in use, where that can be noted."""
    with suppress(OSError):
        os.utime(path)


def tidy(folder: Path, kept: Path) -> None:
    """Removes what nobody used for long, the packed weights beyond KEPT_BYTES, and what was left unfinished.

    kept: a file that stays. Nothing that runs is disturbed: a file in use stays in memory without its name.
    """
    now, used = time.time(), 0
    found = [(path, path.stat()) for pattern in PATTERNS for path in folder.glob(pattern)]
    for path, status in sorted(found, key=lambda one: -one[1].st_mtime):
        age = now - status.st_mtime
        used += status.st_size if path.suffix == ".pack" else 0
        limit = UNFINISHED_SECONDS if path.suffix == ".unfinished" else KEPT_SECONDS
        if path != kept and (age > limit or (path.suffix == ".pack" and used > KEPT_BYTES)):
            logger.debug("removed %s", path)
            path.unlink(missing_ok=True)


PATTERNS = ("weights-*.pack", "weights-*.content", "kernels-*", "libkernels-*", ".native-*.unfinished")
"""What is ours in the folder; others may keep things there, too."""
