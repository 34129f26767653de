"""How kernels are compiled and found: what is missing is said, with the way out."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from loaded import need_of
from oracle.expected import Fixture
from text_embeddings_inference.engines.base import Refusal
from text_embeddings_inference.engines.native_kind import NativeKind
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.native import build, kernels
from text_embeddings_inference.native.library import load_library


def refusal(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Refusal:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(kernels, "SHIPPED", cache / "none")
    kernels.find_kernels.cache_clear()
    answer = NativeKind().offer(need_of(Fixture("bert").open(), engine="native"))
    kernels.find_kernels.cache_clear()
    assert isinstance(answer, Refusal)
    return answer


def test_without_a_compiler_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    assert "there is no C compiler" in refusal(monkeypatch, tmp_path).reason


@pytest.mark.parametrize("mode", [None, 0o600], ids=["not there", "not a program"])
def test_a_compiler_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int | None) -> None:
    command = tmp_path / "compiler"
    if mode is not None:
        command.touch(stat.S_IFREG | mode)
    monkeypatch.setenv("CC", str(command))
    assert f"no compiler starts as `{command}`" in refusal(monkeypatch, tmp_path).reason


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "compiler"
    command.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    command.chmod(0o700)
    monkeypatch.setenv("CC", str(command))
    assert refusal(monkeypatch, tmp_path).reason.startswith("the native kernels could not be compiled: no such option")
    assert not list((tmp_path / "text-embeddings-inference").iterdir())


def test_a_cache_that_can_not_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(build, "find_compiler", lambda: ["cc"])
    answer = refusal(monkeypatch, tmp_path / "file")
    assert "the native kernels can't be kept" in answer.reason
    assert "XDG_CACHE_HOME" in str(answer.hint)


def test_auto_neither_takes_it_nor_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_kernels", lambda: pytest.fail("kernels were looked for"))
    assert isinstance(NativeKind().offer(need_of(Fixture("bert").open())), Refusal)


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "kernels.so").write_bytes(b"none")
    with pytest.raises(StartError, match="can't load the native kernels"):
        load_library(tmp_path / "kernels.so")
