"""What the system refuses, memory and threads, is an error of the batch, and the next one runs."""

from __future__ import annotations

import ctypes as c
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from loaded import loaded_model, need_of
from native.kernels import needs_kernels
from native.test_native_engine import text
from oracle.expected import MODELS, Fixture
from server.client import Client
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native import kernels
from text_embeddings_inference.native.build import build, find_compiler, levels_here
from text_embeddings_inference.native.library import Level, level_names, load_library
from text_embeddings_inference.settings import Settings

pytestmark = [needs_kernels, pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")]

REFUSING = """
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* The call of that number from now on fails, and those after it where `lasting`; -1: none does. */
atomic_int fails_at = -1, lasting, no_threads;

static int refuses(void)
{
    if (atomic_load(&fails_at) < 0)
        return 0;
    return atomic_fetch_sub(&fails_at, 1) == 0 || (lasting && (atomic_store(&fails_at, 0), 1));
}
void *test_malloc(size_t size) { return refuses() ? NULL : malloc(size); }
void *test_calloc(size_t count, size_t size) { return refuses() ? NULL : calloc(count, size); }
void *test_aligned_alloc(size_t to, size_t size) { return refuses() ? NULL : aligned_alloc(to, size); }
int test_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with)
{
    return no_threads ? EAGAIN : pthread_create(thread, how, run, with);
}
"""
CALLS = ("malloc", "calloc", "aligned_alloc", "pthread_create")
CASES = {"one thread": 1, "three threads": 3}


class Refusing:
    """Kernels whose calls of the system can be made to fail."""

    def __init__(self, folder: Path) -> None:
        source, shim, self.path = folder / "refusing.c", folder / "refusing.so", folder / "kernels.so"
        source.write_text(REFUSING)
        compiler = find_compiler()
        assert compiler is not None
        subprocess.run([*compiler, "-shared", "-fPIC", "-o", shim, source], check=True)
        self._shim = c.CDLL(str(shim), c.RTLD_GLOBAL)
        flags = [f"-D{name}=test_{name}" for name in CALLS]
        build(self.path, levels_here(cpu_flags()), compiler=compiler, flags=flags)
        self.level = Level(library := load_library(self.path), level_names(library)[0])

    def _set(self, name: str, value: int) -> None:
        c.c_int.in_dll(self._shim, name).value = value

    @contextmanager
    def memory(self, *, at: int, lasting: bool = False) -> Iterator[None]:
        """The allocation of that number, from 0 on, fails within the block, and all after it where it lasts."""
        self._set("lasting", lasting)
        self._set("fails_at", at)
        try:
            yield
        finally:
            self._set("fails_at", -1)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """No thread can be started within the block."""
        self._set("no_threads", 1)
        try:
            yield
        finally:
            self._set("no_threads", 0)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Refusing:
    return _refusing(tmp_path_factory.mktemp("refusing"))


@cache
def _refusing(folder: Path) -> Refusing:
    return Refusing(folder)


def make(refusing: Refusing, threads: int) -> NativeEngine:
    need = need_of(Fixture("bert").open(), no_compile_cache=True)
    return NativeEngine(need, Offer("native", "float32", threads, threads), refusing.level)


@pytest.mark.parametrize("case", CASES)
def test_an_allocation_that_fails_is_an_error_of_the_batch(refusing: Refusing, case: str) -> None:
    expected = (engine := make(refusing, 1)).run(batch := engine.arrange([text(20), text(9)])).pooled
    engine.close()
    failed = 0
    while True:
        engine = make(refusing, CASES[case])
        try:
            with refusing.memory(at=failed):
                found = engine.run(batch).pooled
        except MemoryError:
            failed += 1
            found = engine.run(batch).pooled  # the next batch finds memory
            assert np.array_equal(found, expected)
            engine.close()
            continue
        assert np.array_equal(found, expected), "fewer threads compute the same"
        engine.close()
        break
    assert failed >= 2, "the block and its memory"


@pytest.mark.parametrize("case", CASES)
def test_batches_go_on_while_allocations_fail_at_any_place(refusing: Refusing, case: str) -> None:
    """Where a team's own memory is missing, too: fewer threads do the work, or it is an error."""
    engine = make(refusing, CASES[case])
    batch = engine.arrange([text(20), text(9)])
    expected = engine.run(batch).pooled
    for place in range(12):
        larger = engine.arrange([text(30)] * (40 * (place + 1)))  # needs more than is kept
        with refusing.memory(at=place, lasting=True), suppress(MemoryError):
            engine.run(larger)
        assert np.array_equal(engine.run(batch).pooled, expected)
    engine.close()


def test_an_engine_that_finds_no_memory_is_not_made(refusing: Refusing) -> None:
    failed = 0
    for place in range(40):
        try:
            with refusing.memory(at=place):
                make(refusing, 2).close()
        except MemoryError:
            failed += 1
    assert failed >= 5, "each matrix is packed by way of a little memory"
    make(refusing, 2).close()


def test_threads_that_can_not_be_started_are_done_without(refusing: Refusing) -> None:
    alone, engine = make(refusing, 1), make(refusing, 4)
    batch = engine.arrange([text(40, i) for i in range(9)])
    with refusing.threads():
        assert np.array_equal(engine.run(batch).pooled, alone.run(batch).pooled)
    assert np.array_equal(engine.run(batch).pooled, alone.run(batch).pooled)
    engine.close()
    alone.close()


def test_the_server_answers_424_and_goes_on(refusing: Refusing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SHIPPED", refusing.path)
    kernels.find_kernels.cache_clear()
    settings = Settings.of(model_id=str(MODELS / "bert"), engine="native", threads=2, no_compile_cache=True)
    with Client(loaded_model(settings), settings) as client:
        with refusing.memory(at=0, lasting=True):
            refused = client.post("/embed", {"inputs": "What is deep learning?"})
        assert refused.status == 424
        assert refused.json["error_type"] == "Backend"
        assert client.post("/embed", {"inputs": ["What is deep learning?", "I like pizza"]}).status == 200
    kernels.find_kernels.cache_clear()
