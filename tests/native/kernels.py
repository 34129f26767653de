"""The kernels under test: all levels, built once for these sources."""

from __future__ import annotations

import os
from ctypes import CDLL
from functools import cache
from pathlib import Path

from text_embeddings_inference.native.build import all_levels, built_library
from text_embeddings_inference.native.library import Level, level_names, load_library

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "text-embeddings-inference"


FLAGS = os.environ.get("NATIVE_FLAGS", "").split()
"""Of the compiler, besides: `make test-native` has every access checked."""


@cache
def library() -> CDLL:
    return load_library(built_library(CACHE, all_levels(), FLAGS))


@cache
def kernels(level: str) -> Level:
    return Level(library(), level)


@cache
def levels() -> list[str]:
    """Those that this CPU can run, the best one first."""
    return level_names(library())


def best_kernels() -> Level:
    return kernels(levels()[0])
