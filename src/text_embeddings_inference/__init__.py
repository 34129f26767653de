"""Text Embeddings Inference: a fast server and library for embedding, reranking, sparse and classification models.

`load(path).embed(texts)` gives vectors in process; `text-embeddings-router --model-id path` serves them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .library import Embedder, load
    from .types import EncodeOptions, Pooling

__all__ = ["Embedder", "EncodeOptions", "Pooling", "load"]

_HOMES = {"Embedder": "library", "load": "library", "EncodeOptions": "types", "Pooling": "types"}


def __getattr__(
    name: str,
) -> Any:  # the parts are imported when they are asked for: the command line needs none of them
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
