"""The kernels under test: those that this machine would take; with NATIVE_FLAGS all that it can run, so built."""

from __future__ import annotations

import os
from ctypes import CDLL
from functools import cache

import pytest

from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native.build import (
    built_library,
    cache_folder,
    find_compiler,
    levels_here,
    runnable_levels,
)
from text_embeddings_inference.native.kernels import SHIPPED, find_kernels
from text_embeddings_inference.native.library import Level, load_library

FLAGS = os.environ.get("NATIVE_FLAGS", "").split()
"""Of the compiler, besides: `make test-native` has every access checked."""

needs_kernels = pytest.mark.skipif(
    find_compiler() is None and not SHIPPED.exists(), reason="there is no C compiler for the native kernels"
)


@cache
def library() -> CDLL:
    """Compiled by the first test that needs it."""
    if FLAGS:
        return load_library(built_library(cache_folder(), runnable_levels(cpu_flags()), FLAGS))
    return find_kernels().library


@cache
def kernels(level: str) -> Level:
    return Level(library(), level)


@cache
def levels() -> list[str]:
    """Those that are tested, the best one first."""
    found = runnable_levels(cpu_flags()) if FLAGS else levels_here(cpu_flags())
    return list(found)[::-1]


def best_kernels() -> Level:
    return kernels(levels()[0])
