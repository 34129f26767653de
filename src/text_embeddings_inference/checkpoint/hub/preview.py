"""A model's files without its weights, for explanations: of safetensors files on the Hub only the headers are fetched.

A header is put into an empty file as long as the real one (sparse: it takes no space), so that everything that reads
checkpoints can read it: each tensor has its name, type and shape, and is full of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ...errors import CheckpointError, UnsupportedError
from .cache import CacheSource, HubAccess
from .locate import MissingFileError, RemoteSource, Source, fetch_checkpoint, find_source

WEIGHTS = (".safetensors", ".bin", ".onnx", ".onnx_data", ".data")

SMALL = 20_000_000
"""Bytes up to which weights are fetched like any other file: Dense modules, above all."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the checkpoint."""

    name: str
    """Its path in there."""

    size: int
    """Bytes."""


class Preview(NamedTuple):
    """What is known of a checkpoint whose weights are not fetched."""

    folder: Path
    """Can be opened like the model's."""

    is_lasting: bool
    """Whether the folder is the model's own."""

    linked: Path | None
    """Where the links in the folder lead to; None for one that is the model's own."""

    files: tuple[File, ...]
    """All that would be read."""

    unread: tuple[File, ...]
    """The weights that are not in the folder, because their format does not begin with a list of tensors (of ONNX
    graphs there is an empty file)."""


@contextmanager
def preview(
    model_id: str, access: HubAccess, *, dense_path: str | None = None, onnx_file: str | None = None
) -> Iterator[Preview]:
    """The files that `locate` would find; those of the Hub lie in a folder that is removed afterwards.

    Missing files are no error here: opening the checkpoint tells. Raises `HubError` when the repository can't be had.
    """
    with TemporaryDirectory(prefix="preview-") as scratch:
        source: Source
        if model_id and Path(model_id).is_dir():
            source = _FolderSource(Path(model_id))
        else:
            found = find_source(model_id, access, dense_path, onnx_file)
            source = found if isinstance(found, CacheSource) else _HeaderSource(found, Path(scratch))
        recorder = _Recorder(source)
        go_on = suppress(MissingFileError, CheckpointError, UnsupportedError)
        fetch_checkpoint(recorder, model_id, dense_path, onnx_file, step=lambda: go_on)
        unread = tuple(source.unread) if isinstance(source, _HeaderSource) else ()
        unread_names = {file.name for file in unread}
        names = [name for name in recorder.names if name not in unread_names]
        files = [File(name, (source.folder / name).stat().st_size) for name in names]
        is_lasting = not isinstance(source, _HeaderSource)
        linked = None if is_lasting else access.cache_dir
        yield Preview(source.folder, is_lasting, linked, (*files, *unread), unread)


class _FolderSource:
    """A folder, as it is."""

    hint = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, name: str) -> bool:
        return (self.folder / name).is_file()


class _HeaderSource:
    """A repository of the Hub; in `folder` its small files are links into the cache."""

    def __init__(self, remote: RemoteSource, folder: Path) -> None:
        self.folder = folder
        self.hint = remote.hint
        self.unread: list[File] = []
        self._remote = remote

    def fetch(self, name: str) -> bool:
        size = self._remote.size(name)
        suffix = PurePosixPath(name).suffix
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix not in WEIGHTS or size is None or size <= SMALL or self._remote.has(name):
            if not self._remote.fetch(name):
                return False
            path.symlink_to((self._remote.folder / name).resolve())
        elif suffix == ".safetensors":
            header = self._remote.safetensors_header(name)
            with path.open("wb") as file:
                file.write(len(header).to_bytes(8, "little") + header)
                file.truncate(size)
        else:
            self.unread.append(File(name, size))
            if suffix == ".onnx":
                path.touch()
        return True


class _Recorder:
    """Notes the files that were found and lie in the folder."""

    def __init__(self, source: Source) -> None:
        self.folder, self.hint = source.folder, source.hint
        self.names: list[str] = []
        self._source = source

    def fetch(self, name: str) -> bool:
        found = self._source.fetch(name)
        if found and (self.folder / name).exists():
            self.names.append(name)
        return found
