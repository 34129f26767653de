"""How kernels are compiled and found: what is missing is said, with the way out."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from loaded import need_of
from native.kernels import needs_kernels
from oracle.expected import Fixture
from text_embeddings_inference.engines.base import Offer, Refusal
from text_embeddings_inference.engines.native_kind import NativeKind
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native import build, kernels
from text_embeddings_inference.native.library import load_library
from text_embeddings_inference.settings.engine import CPU_LEVELS


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


def test_the_words_of_the_command_line_are_the_levels() -> None:
    assert {name for levels in build.LEVELS.values() for name in levels} <= set(CPU_LEVELS)


@needs_kernels
def test_a_level_that_this_cpu_does_not_have() -> None:
    missing = next(name for name in CPU_LEVELS if name not in build.runnable_levels(cpu_flags()))
    answer = NativeKind().offer(need_of(Fixture("bert").open(), engine="native", cpu_level=missing))
    assert isinstance(answer, Refusal)
    assert missing in answer.reason
    assert "plain" in str(answer.hint)


@needs_kernels
def test_a_level_by_name() -> None:
    need = need_of(Fixture("bert").open(), engine="native", cpu_level="plain")
    assert NativeKind().offer(need) == Offer("native", "float32", 2, 2)
    summary, _ = NativeKind().plan(need) or ("", "")
    assert summary.startswith("kernels `plain`; ")


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "kernels.so").write_bytes(b"none")
    with pytest.raises(StartError, match="can't load the native kernels"):
        load_library(tmp_path / "kernels.so")


@needs_kernels
def test_a_level_that_fails_its_test_is_left_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best, plain = list(build.levels_here(cpu_flags()).items())[-1], build.runnable_levels(cpu_flags())["plain"]
    if best[0] == "plain":
        pytest.skip("this machine has one level")
    wrong = (*best[1], "-Dsqrtf=cosf")  # so that its norms are others
    monkeypatch.setattr(kernels, "SHIPPED", build.built_library(tmp_path, {"plain": plain, best[0]: wrong}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.find_kernels.cache_clear()
    assert kernels.find_kernels().name == "plain"
    assert f"the native kernels `{best[0]}` do not compute on this CPU what they should: not used" in caplog.text
    with pytest.raises(StartError, match="do not compute on this CPU what they should"):
        kernels.find_kernels(best[0])
    kernels.find_kernels.cache_clear()


@pytest.mark.parametrize(
    ("machine", "flags", "levels"),
    [
        ("x86_64", "", ["plain"]),
        ("x86_64", "avx2 fma", ["plain", "avx2"]),
        ("x86_64", "avx2 fma avx_vnni", ["plain", "avx2", "avx_vnni"]),
        ("aarch64", "asimd asimddp", ["plain", "neon", "neon_dot"]),
        ("riscv64", "v", ["plain"]),
    ],
)
def test_levels_that_are_compiled(machine: str, flags: str, levels: list[str]) -> None:
    """Where the best one never ran on hardware, those that are taken if it fails there, too."""
    assert list(build.levels_here(flags.split(), machine)) == levels


def test_each_level_is_known_with_what_it_needs() -> None:
    names = {name for levels in build.LEVELS.values() for name in levels}
    assert set(build.NEEDED) == names - {"plain"}
    assert names >= build.UNTRIED
