"""The kernels under test: all levels, built once for these sources."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from text_embeddings_inference.native.build import all_levels, built_library
from text_embeddings_inference.native.library import Level, level_names, load_library

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "text-embeddings-inference"


@cache
def kernels(level: str) -> Level:
    return Level(load_library(built_library(CACHE, all_levels())), level)


@cache
def levels() -> list[str]:
    """Those that this CPU can run, the best one first."""
    return level_names(load_library(built_library(CACHE, all_levels())))


def best_kernels() -> Level:
    return kernels(levels()[0])
