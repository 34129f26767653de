"""Where a model lies: in a folder, or in a repository of the Hub, which is then copied into the local cache.

What the cache holds of the wanted revision is used without asking the Hub, so a second start needs no network.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Protocol

from ...errors import HubError, SettingsError
from ..layout import Layout
from ..modules import MODULES, ModulePaths, read_module_paths, router_files
from .cache import CacheSource, HubAccess, find_snapshot, only_snapshot

logger = logging.getLogger(__name__)

# A name, or an owner and a name. The Hub allows less; what matters here is that it can't point out of the cache.
REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


class MissingFileError(HubError):
    """A repository lacks a file that every model has."""


class Source(Protocol):
    """A place that files of one commit come from."""

    folder: Path
    """Where files lie once they are fetched."""

    hint: str
    """The way out for a file that is not there."""

    def fetch(self, name: str) -> bool:
        """Makes sure that the file lies in `folder`; False when there is no such file."""
        ...


class RemoteSource(Source, Protocol):
    """A source whose files can be looked at before they are fetched."""

    def has(self, name: str) -> bool:
        """Whether the file lies in `folder` already."""
        ...

    def size(self, name: str) -> int | None:
        """The file's size in bytes; None when there is no such file."""
        ...

    def safetensors_header(self, name: str) -> bytes:
        """The header of a safetensors file, as JSON. Nothing else of the file is kept."""
        ...


def locate(model_id: str, access: HubAccess, *, dense_path: str | None = None, onnx_file: str | None = None) -> Path:
    """The folder of the model: `model_id` itself when that is a folder, else a snapshot of that Hub repository.

    dense_path, onnx_file: the options of these names, a folder and a file that are needed too. For a folder nothing is
    checked and no network is used. Raises `HubError` when the repository can't be had, `CheckpointError` or
    `UnsupportedError` when its files already show that it can't be served, `SettingsError` for an option that points
    out of the repository.
    """
    if model_id and Path(model_id).is_dir():
        return Path(model_id)
    source = find_source(model_id, access, dense_path, onnx_file)
    fetch_checkpoint(source, model_id, dense_path, onnx_file)
    return source.folder


def find_source(
    model_id: str, access: HubAccess, dense_path: str | None, onnx_file: str | None
) -> CacheSource | RemoteSource:
    """The cache where it holds all that is needed, else the Hub. Raises `HubError` when neither can be had."""
    if not REPOSITORY.fullmatch(model_id) or ".." in model_id:
        problem = f"`{model_id}` is neither an existing folder nor the id of a Hub repository"
        raise HubError(problem, hint="check `--model-id`: a path, or `owner/name`")
    for option, path in (("--dense-path", dense_path), ("--onnx-file", onnx_file)):
        if path is not None and (path.startswith("/") or ".." in PurePosixPath(path).parts):
            raise SettingsError(f"`{option} {path}` is not inside of the repository `{model_id}`")
    repository = access.cache_dir / f"models--{model_id.replace('/', '--')}"
    snapshot = find_snapshot(repository, access.revision or "main")
    # Of a repository that was fetched by its commit alone, the cache does not know what `main` is. Nor do we, but where
    # the Hub can't tell, its only commit is as good.
    found = snapshot or (only_snapshot(repository) if access.revision is None else None)
    cache = None if found is None else CacheSource(found)
    failure = _try_fetch(cache, model_id, dense_path, onnx_file)
    if cache is not None and failure is None:
        if snapshot is not None and cache.is_certain:
            return cache
        if access.offline:
            logger.info("`%s` is taken from the cache: %s", model_id, cache.folder)
            return cache
    if access.offline:
        raise failure or HubError(f"`{model_id}` is not in the cache ({access.cache_dir})", hint=CacheSource.hint)
    from .client import HubSource, UnreachableError  # huggingface_hub is loaded only when something must be fetched

    try:
        return HubSource(model_id, repository, access, None if snapshot is None else snapshot.commit)
    except UnreachableError as error:
        if cache is None or failure is not None:
            raise
        logger.warning("%s. Using the files in the cache; optional ones may be missing", error)
        return cache


def fetch_checkpoint(
    source: Source,
    model_id: str,
    dense_path: str | None,
    onnx_file: str | None,
    step: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Fetches what `open_checkpoint` reads: settings first, then weights, in one format only.

    step: made around everything that may be missing; one that swallows errors lets the rest be fetched all the same.
    """
    source.fetch(MODULES)
    modules = ModulePaths()
    with step():
        _fetch_first(source, router_files(source.folder))
        modules = read_module_paths(source.folder)
    layout = Layout(modules.replace_dense(dense_path), onnx_file)
    for name in layout.required:
        with step():
            if not source.fetch(name):
                raise MissingFileError(f"`{name}` not found in `{model_id}`", hint=source.hint)
    for names in layout.optional:
        _fetch_first(source, names)
    for side in layout.by_side:
        with step():
            _fetch_weights(source, model_id, side)


def _fetch_weights(source: Source, model_id: str, layout: Layout) -> None:
    weights = _fetch_first(source, layout.weights)
    if weights is None:
        looked_for = ", ".join(f"`{name}`" for name in layout.weights)
        raise MissingFileError(f"Weights not found: `{model_id}` has none of {looked_for}", hint=source.hint)
    for names in layout.beside(source.folder, weights):
        if _fetch_first(source, names) is None and not weights.endswith(".onnx"):
            raise MissingFileError(f"Weights not found: `{names[0]}` is not in `{model_id}`", hint=source.hint)


def _fetch_first(source: Source, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if source.fetch(name)), None)


def _try_fetch(source: Source | None, model_id: str, dense_path: str | None, onnx_file: str | None) -> HubError | None:
    """Why the files are not all there; None when they are (or when there is no source)."""
    if source is None:
        return None
    try:
        fetch_checkpoint(source, model_id, dense_path, onnx_file)
    except HubError as error:
        return error
    return None
