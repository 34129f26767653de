"""Kernels are compiled beforehand on machines with a C compiler and without, and what is missing is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import kernels
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.native import build
from text_embeddings_inference.native.library import load_library

FETCH = """
import pathlib, sys
zig = pathlib.Path(sys.argv[sys.argv.index("--target") + 1]) / "ziglang" / "zig"
zig.parent.mkdir()
zig.write_text('#!/bin/sh\\n[ "$1 $2" = "cc -mcpu=baseline" ] && shift 2 && exec {cc} "$@"\\n')
zig.chmod(0o700)
pathlib.Path({log!r}).write_text(str(zig))
"""


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "levels_here", lambda flags: {"plain": ()})
    with monkeypatch.context() as environment:  # what the script sets itself is taken back, too
        environment.setenv("ZIG_GLOBAL_CACHE_DIR", "")
        yield


def hide_compilers(monkeypatch: pytest.MonkeyPatch) -> str:
    """As on a machine without one. The command of the one that there is."""
    found = build.find_compiler()
    if found is None:
        pytest.skip("there is no C compiler for the native kernels")
    monkeypatch.setenv("CC", "")
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    return " ".join(found)


def test_zig_is_fetched_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler, log = hide_compilers(monkeypatch), tmp_path / "log"
    monkeypatch.setattr(kernels, "PIP", (sys.executable, "-c", FETCH.format(cc=compiler, log=str(log))))
    library = kernels.compiled(tmp_path / "zig.txt")
    assert library.parent == tmp_path / "cache" / "text-embeddings-inference"
    assert load_library(library).tei_find_level(b"plain")
    assert not Path(log.read_text()).exists(), "zig is removed again"
    monkeypatch.setattr(kernels, "PIP", ("false",))
    assert kernels.compiled(tmp_path / "zig.txt") == library, "what is there is not compiled again"


def test_neither_a_compiler_nor_pypi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_compilers(monkeypatch)
    monkeypatch.setattr(kernels, "PIP", ("false",))
    with pytest.raises(StartError, match=r"there is no C compiler, and zig can't be installed\nhint: install gcc"):
        kernels.compiled(tmp_path / "zig.txt")


def test_a_compiler_that_fails_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(kernels, "PIP", ("not run",))
    monkeypatch.setattr(sys, "argv", ["kernels.py", str(tmp_path / "zig.txt")])
    with pytest.raises(SystemExit, match=r"^The native kernels are not compiled: .* could not be compiled"):
        kernels.main()
