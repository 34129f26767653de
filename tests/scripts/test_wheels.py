"""A wheel needs no compiler, no network and no place to keep compiled kernels. `make wheels` runs this with the real
one (WHEEL); else it is built here, with the plain kernels alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from oracle.expected import MODELS
from scripts import wheels
from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native.build import find_compiler, runnable_levels

EMBED = """
import sys
from text_embeddings_inference import load
from text_embeddings_inference.native import kernels
print(kernels.SHIPPED, kernels.find_kernels().name)
load(sys.argv[1], engine="native", dtype="float32").embed(["text"]).tofile(sys.argv[2])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("WHEEL"):
        return Path(given)
    if (compiler := find_compiler()) is None:
        pytest.skip("there is no C compiler for the native kernels")
    folder = tmp_path_factory.mktemp("wheels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheels, "all_levels", lambda machine: {"plain": ()})
        wheels.make_wheel(os.uname().machine, folder, compiler)
    (built,) = folder.iterdir()
    return built


def test_the_name_says_any_python_on_an_old_linux(wheel: Path) -> None:
    assert wheel.name.endswith(f"-py3-none-manylinux2014_{os.uname().machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        assert b"Root-Is-Purelib: false" in archive.read(name)


def test_installed_it_runs_its_own_kernels(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    environment = {
        "PYTHONPATH": str(Path(np.__file__).parents[1]),  # the packages that it needs
        "PATH": str(tmp_path / "no compiler"),
        "XDG_CACHE_HOME": "/dev/null",  # nothing can be kept
    }
    command = [python, "-c", EMBED, MODELS / "bert", tmp_path / "vector"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    library, level = done.stdout.split()
    assert Path(library).is_relative_to(tmp_path / "venv")
    assert Path(library).exists()
    assert level == (list(runnable_levels(cpu_flags()))[-1] if "WHEEL" in os.environ else "plain")
    assert np.linalg.norm(np.fromfile(tmp_path / "vector", np.float32)) == pytest.approx(1, abs=1e-5)


def test_the_checkout_is_left_as_it_was(wheel: Path) -> None:
    assert wheel.exists()
    assert not (wheels.ROOT / wheels.KERNELS).exists()


def test_a_newer_glibc_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"old": b"\0memcpy\0GLIBC_2.2.5\0GLIBC_2.17\0", "new": b"\0log\0GLIBC_2.29\0GLIBC_2.2.5\0"}
    for name, strings in names.items():
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr("text_embeddings_inference/native/libkernels.so", b"\x7fELF" + strings)
    wheels.check_symbols(tmp_path / "old.whl")
    assert "old.whl: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"new\.whl: the kernels need glibc 2\.29, manylinux2014 has 2\.17"):
        wheels.check_symbols(tmp_path / "new.whl")
