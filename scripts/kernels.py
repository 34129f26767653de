"""Compiles the kernels for this machine's CPU beforehand, as its first start would: by the system's C compiler, else by
zig from PyPI, which is removed again.

    PYTHONPATH=src python scripts/kernels.py requirements/zig.txt        (make)

Runs while the server's packages are installed, and imports none of them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from text_embeddings_inference.errors import StartError
from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native.build import ZIG, built_library, cache_folder, find_compiler, levels_here

PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile")


def main() -> None:
    try:
        print(f"Native kernels: {compiled(Path(sys.argv[1]))}")
    except StartError as problem:
        sys.exit(f"The native kernels are not compiled: {problem}")


def compiled(requirements: Path) -> Path:
    """The library. requirements: where zig is pinned. Raises StartError where it can't be had."""
    levels = levels_here(cpu_flags())
    try:
        return built_library(cache_folder(), levels)
    except StartError:
        if find_compiler() is not None:
            raise
    with tempfile.TemporaryDirectory() as folder:
        print("There is no C compiler: fetching zig from PyPI to compile the native kernels (100 MB, once)")
        pinned = (
            "--no-deps",
            "--require-hashes",
            "--requirement",
            str(requirements),
            "--target",
            folder,
            "--retries=1",
        )
        try:
            subprocess.run([*PIP, *pinned], check=True)
        except subprocess.CalledProcessError:
            problem = "there is no C compiler, and zig can't be installed"
            raise StartError(problem, hint="install gcc, or go where PyPI can be reached") from None
        os.environ["CC"] = shlex.join([f"{folder}/ziglang/zig", *ZIG[3:]])
        os.environ["ZIG_GLOBAL_CACHE_DIR"] = f"{folder}/cache"
        return built_library(cache_folder(), levels)


if __name__ == "__main__":
    main()
