"""The local cache of the Hub, as all of its tools keep it.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from os.path import expanduser, expandvars
from pathlib import Path, PurePosixPath

from ...errors import HubError

COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How repositories of the Hub are reached."""

    cache_dir: Path
    """Folder of the cache."""

    revision: str | None = None
    """Branch, tag, `refs/pr/N` or commit; None: `main`."""

    token: str | None = field(default=None, repr=False)
    """None: the one that the Hub's own tools have stored."""

    endpoint: str | None = None
    """Base URL; None: https://huggingface.co."""

    offline: bool = False
    """Whether the cache alone is used."""

    user_agent_origin: str | None = None
    """Added to the user agent as `origin/...`."""

    home: Path | None = None
    """Folder with the stored token; None: the one that the Hub's own tools use."""


def expand(folder: str | PathLike[str]) -> Path:
    """A folder as the Hub's own client takes it: with `~` and `$VARIABLE`."""
    return Path(expandvars(expanduser(folder)))


class CachedSnapshot:
    """One commit of a repository in the cache."""

    def __init__(self, repository: Path, commit: str) -> None:
        self.folder = repository / "snapshots" / commit
        self.commit = commit
        self._absent = repository / ".no_exist" / commit

    def has(self, name: str) -> bool | None:
        """Whether the file is there; None when nobody has asked the Hub for it yet."""
        if (self.folder / name).is_file():
            return True
        return False if (self._absent / name).is_file() else None

    def mark_absent(self, name: str) -> None:
        """Notes that the commit has no such file. In a cache that can't be written, the next start asks again."""
        path = self._absent / name
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


class CacheSource:
    """Files from the cache alone. What the cache does not know is taken for absent."""

    hint = "start once with network, or check `--huggingface-hub-cache`"

    def __init__(self, snapshot: CachedSnapshot) -> None:
        self.folder = snapshot.folder
        self.is_certain = True
        self._snapshot = snapshot

    def fetch(self, name: str) -> bool:
        has = self._snapshot.has(name)
        self.is_certain &= has is not None
        return bool(has)


def only_snapshot(repository: Path) -> CachedSnapshot | None:
    """The snapshot of a repository of which the cache has a single one, whatever revision it is of."""
    folders = [path for path in repository.glob("snapshots/*") if COMMIT.fullmatch(path.name) and path.is_dir()]
    return CachedSnapshot(repository, folders[0].name) if len(folders) == 1 else None


def find_snapshot(repository: Path, revision: str) -> CachedSnapshot | None:
    """The snapshot the cache has for the revision; None when it has none."""
    commit = revision
    if not COMMIT.fullmatch(revision):
        reference = PurePosixPath(revision)
        if reference.is_absolute() or ".." in reference.parts:
            raise HubError(f"`{revision}` is no revision", hint="`--revision` takes a branch, a tag or a commit")
        path = repository / "refs" / reference
        commit = path.read_text().strip() if path.is_file() else ""
    snapshot = CachedSnapshot(repository, commit)
    return snapshot if COMMIT.fullmatch(commit) and snapshot.folder.is_dir() else None
