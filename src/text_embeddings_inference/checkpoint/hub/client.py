"""Files of the Hub, downloaded into its cache. Imported only when something must be fetched: huggingface_hub is slow to
load."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
    SafetensorsParsingError,
    XetDownloadError,
)
from huggingface_hub.hf_api import ModelInfo

from ...errors import HubError
from .cache import CachedSnapshot, HubAccess

logger = logging.getLogger(__name__)

LISTING_TIMEOUT = 10.0
"""Seconds the Hub has to answer the first request."""

FAILURE = "Could not download model artifacts"


class UnreachableError(HubError):
    """The Hub does not answer: no network, a wrong endpoint, or an outage."""


class HubSource:
    """A commit of a repository on the Hub: the cached one if there is one, else that of the wanted revision.

    Asks for the list of files at once. Raises `HubError`, and `UnreachableError` when the Hub does not answer.
    """

    hint = "check `--model-id` and `--revision`: this repository can't be served"

    def __init__(self, model_id: str, repository: Path, access: HubAccess, cached_commit: str | None) -> None:
        self._model_id, self._access = model_id, access
        self._endpoint = (access.endpoint or "https://huggingface.co").rstrip("/")
        self._api = HfApi(
            endpoint=self._endpoint,
            token=access.token or _stored_token(access.home),
            library_name="text-embeddings-inference",
            user_agent={"origin": access.user_agent_origin} if access.user_agent_origin else None,
        )
        info = self._list_files(cached_commit)
        if info.sha is None or info.siblings is None:
            raise UnreachableError(
                f"{FAILURE}: {self._endpoint} does not answer like the Hub", hint="check `HF_ENDPOINT`"
            )
        self._commit = info.sha
        self._sizes = {file.rfilename: file.size for file in info.siblings}
        self._snapshot = CachedSnapshot(repository, info.sha)
        self.folder = self._snapshot.folder
        _write_reference(repository, access.revision or "main", info.sha)

    def fetch(self, name: str) -> bool:
        """Downloads the file unless it is in the cache. A broken connection is resumed; no file is left incomplete."""
        if self._snapshot.has(name):
            return True
        if name not in self._sizes:
            self._snapshot.mark_absent(name)
            return False
        size = self._sizes[name]
        logger.info("Downloading `%s`%s", name, "" if size is None else f" ({_readable(size)})")
        with self._errors(f"`{name}` of `{self._model_id}`"):
            self._api.hf_hub_download(self._model_id, name, revision=self._commit, cache_dir=self._access.cache_dir)
        return True

    def has(self, name: str) -> bool:
        return bool(self._snapshot.has(name))

    def size(self, name: str) -> int | None:
        return (self._sizes[name] or 0) if name in self._sizes else None

    def safetensors_header(self, name: str) -> bytes:
        """Fetches the first 100 kB, and more only for a longer header; filled up with blanks to its own length."""
        with self._errors(f"the header of `{name}` of `{self._model_id}`"):
            found = self._api.parse_safetensors_file_metadata(self._model_id, name, revision=self._commit)
        tensors = {
            tensor: {"dtype": info.dtype, "shape": info.shape, "data_offsets": info.data_offsets}
            for tensor, info in found.tensors.items()
        }
        end = max((info.data_offsets[1] for info in found.tensors.values()), default=0)
        header = json.dumps(tensors, ensure_ascii=False, separators=(",", ":")).encode()
        return header.ljust((self._sizes[name] or 0) - 8 - end)

    def _list_files(self, cached_commit: str | None) -> ModelInfo:
        with self._errors(f"the list of files of `{self._model_id}`"):
            if cached_commit is not None:
                try:
                    return self._ask(cached_commit)
                except RevisionNotFoundError:  # history was rewritten since
                    logger.warning("Commit %s of `%s` is gone: asking for a new one", cached_commit, self._model_id)
            return self._ask(self._access.revision or "main")

    def _ask(self, revision: str) -> ModelInfo:
        return self._api.model_info(self._model_id, revision=revision, timeout=LISTING_TIMEOUT, files_metadata=True)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns what huggingface_hub raises into errors that name the way out."""
        try:
            yield
        except (httpx2.HTTPError, SafetensorsParsingError, XetDownloadError, OSError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None  # it wraps what went wrong
            raise self._translate(cause if isinstance(cause, Exception) else error, what) from error

    def _translate(self, error: Exception, what: str) -> HubError:
        model_id, endpoint = self._model_id, self._endpoint
        match error:
            case GatedRepoError():
                return HubError(
                    f"{FAILURE}: `{model_id}` is gated and this token may not read it",
                    hint=f"accept the terms at {endpoint}/{model_id}, then pass a token of yours with `--hf-token`",
                )
            case RevisionNotFoundError():
                return HubError(
                    f"{FAILURE}: `{model_id}` has no revision `{self._access.revision or 'main'}`",
                    hint=f"check `--revision` against {endpoint}/{model_id}/commits/main",
                )
            case OfflineModeIsEnabled():
                return UnreachableError(
                    f"{FAILURE}: {what} is not in the cache ({self._access.cache_dir}), and `HF_HUB_OFFLINE` is set",
                    hint="unset it, or give a local folder as `--model-id`",
                )
            case HfHubHTTPError() if error.response.status_code in (401, 404):  # also RepositoryNotFoundError
                return HubError(
                    f"{FAILURE}: `{model_id}` is no folder here and no model that this token may read on {endpoint}",
                    hint="check the spelling of `--model-id`; for a private model pass a valid token with `--hf-token`",
                )
            case HfHubHTTPError() if error.response.status_code == 403:
                return HubError(
                    f"{FAILURE}: {endpoint} refuses {what} (status 403)",
                    hint="check that the token (`--hf-token`) may read the model",
                )
            case HfHubHTTPError():
                kind = UnreachableError if error.response.status_code >= 500 else HubError
                problem = f"{endpoint} answered {error.response.status_code} to the request for {what}"
                return kind(f"{FAILURE}: {problem}", hint="try again later, or give a local folder as `--model-id`")
            case SafetensorsParsingError():
                return HubError(f"{what} can't be read: {error}", hint="the file in the repository is damaged")
            case httpx2.HTTPError():
                return UnreachableError(
                    f"{FAILURE}: could not get {what} from {endpoint}: {error or type(error).__name__}",
                    hint="check the network and `HF_ENDPOINT`, or give a local folder as `--model-id`; "
                    "files that are complete are kept",
                )
            case _:
                return HubError(
                    f"{FAILURE}: {what}: {error}",
                    hint=f"check that {self._access.cache_dir} (`--huggingface-hub-cache`) is writable and has space",
                )


def _stored_token(home: Path | None) -> str | None:
    """The token in a folder that is not the client's own, which knows its token itself."""
    if home is None or home == Path(constants.HF_HOME):
        return None
    with suppress(OSError):
        return (home / "token").read_text().strip() or None
    return None


def _write_reference(repository: Path, revision: str, commit: str) -> None:
    """Notes in the cache which commit a branch or tag stands for. A cache that can't be written is asked again."""
    if revision != commit:
        path = repository / "refs" / revision
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit)


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
