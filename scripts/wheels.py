"""Builds the wheels, which bring compiled kernels for all CPUs of their kind, and the source distribution.

    PYTHONPATH=src .venv/wheels/bin/python scripts/wheels.py FOLDER [MACHINE ...]        (make wheels)

zig compiles for both machines on either of them, and links against the symbols of an old glibc. The kernels are called
by ctypes, so one wheel does for all versions of Python.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

from text_embeddings_inference.native.build import ZIG, all_levels, build

ROOT = Path(__file__).parents[1]
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 17)
"""That of manylinux2014 (PEP 599)."""
KERNELS = Path("src/text_embeddings_inference/native/libkernels.so")


class BinaryDistribution(Distribution):
    """One with a library, whose wheel is for one kind of machine."""

    def has_ext_modules(self) -> bool:
        return True


class AnyPythonWheel(bdist_wheel):
    """The library is no extension module: any Python 3 loads it."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", str(self.plat_name)


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    with source_tree():
        setup(script_args=["-q", "sdist", "--dist-dir", str(out)])
    for machine in sys.argv[2:] or MACHINES:
        target = "{}-linux-gnu.{}.{}".format(machine, *GLIBC)
        make_wheel(machine, out, [*ZIG, "-target", target, "-Wl,-s"])
        check_symbols(next(out.glob(f"*{machine}.whl")))


def make_wheel(machine: str, out: Path, compiler: Sequence[str]) -> None:
    """Puts the wheel for that kind of machine into the folder."""
    with source_tree():
        build(KERNELS.absolute(), all_levels(machine), compiler=compiler)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"(?s)\W*setup\.py install is deprecated")  # bdist_wheel itself runs it
            setup(
                script_args=["-q", "bdist_wheel", "--dist-dir", str(out), "--plat-name", f"manylinux2014_{machine}"],
                distclass=BinaryDistribution,
                cmdclass={"bdist_wheel": AnyPythonWheel},
            )


@contextlib.contextmanager
def source_tree() -> Iterator[None]:
    """A copy of what is packed, to work in: the checkout is left without kernels and build folders."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", KERNELS.name)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, name)
        shutil.copytree(ROOT / "src", "src", ignore=ignored)
        yield


def check_symbols(wheel: Path) -> None:
    """Ends the program where the library in the wheel needs a newer glibc than the wheel's name says."""
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read(KERNELS.relative_to("src").as_posix())
    newest = newest_glibc(library)
    if newest > GLIBC:
        sys.exit("{}: the kernels need glibc {}.{}, manylinux2014 has {}.{}".format(wheel.name, *newest, *GLIBC))
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, kernels {len(library) / 1e6:.2f} MB")


def newest_glibc(library: bytes) -> tuple[int, ...]:
    """The newest version of glibc's symbols that a library asks for, from its table of strings."""
    found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)", library)
    return max(tuple(map(int, version)) for version in found)


if __name__ == "__main__":
    main()
