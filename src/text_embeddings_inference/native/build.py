"""Compiles the kernels: each level for its kind of CPU, all in one shared object. No Python headers are needed.

A compiler is looked for in this order: `CC`, `cc`, `gcc`, `clang`, and the one in the `ziglang` package from PyPI.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from ..errors import StartError

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "csrc"
ZIG = (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline")
"""The compiler of the `ziglang` package, which otherwise takes all that this CPU has for granted."""
COMMON = ("team.c", "run.c", "engine.c", "cpu.c")
"""What is the same at every level."""
FLAGS = (
    *("-std=gnu11", "-O3", "-fPIC", "-pthread", "-Wall", "-Wextra"),
    "-ffp-contract=off",  # a * b + c is one rounding where we say so, or the same row would differ from place to place
    *("-fno-math-errno", "-fno-trapping-math"),
    "-fno-strict-aliasing",  # memory of a batch holds floats, integers and halves in turn
)
AVX2 = ("-mavx2", "-mfma")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
AVX512_BF16 = (*AVX512, "-mavx512vnni", "-mavx512bf16")
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "plain": (),
        "avx2": AVX2,
        "avx_vnni": (*AVX2, "-mavxvnni"),
        "avx512": AVX512,
        "avx512_vnni": (*AVX512, "-mavx512vnni"),
        "avx512_bf16": AVX512_BF16,
        "amx": (*AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
    },
    "aarch64": {
        "plain": (),
        "neon": ("-DUSE_NEON",),
        "neon_dot": ("-DUSE_NEON", "-mcpu=generic+dotprod"),
        "neon_bf16": ("-DUSE_NEON", "-mcpu=generic+dotprod+bf16"),
    },
}
"""By machine: each level's flags. On other machines there is `plain`, vectors in the compiler's own terms."""


UNTRIED = {"avx_vnni", "amx", "neon", "neon_dot", "neon_bf16"}
"""Levels that ran in emulation only (scripts/levels.py), on no hardware yet."""

AVX512_FLAGS = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
NEEDED: dict[str, set[str]] = {
    "avx2": {"avx2", "fma"},
    "avx_vnni": {"avx2", "fma", "avx_vnni"},
    "avx512": AVX512_FLAGS,
    "avx512_vnni": AVX512_FLAGS | {"avx512_vnni"},
    "avx512_bf16": AVX512_FLAGS | {"avx512_vnni", "avx512_bf16"},
    "amx": AVX512_FLAGS | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
    "neon": {"asimd"},
    "neon_dot": {"asimd", "asimddp"},
    "neon_bf16": {"asimd", "asimddp", "bf16"},
}
"""What each level needs, as /proc/cpuinfo names it; cpu.c asks the CPU itself."""


def find_compiler() -> list[str] | None:
    """The command of a C compiler; None if there is none."""
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    return list(ZIG) if find_spec("ziglang") else None


def all_levels(machine: str = platform.machine()) -> dict[str, tuple[str, ...]]:
    """The levels of a kind of machine, with their flags."""
    return LEVELS.get(machine, {"plain": ()})


def levels_here(flags: Collection[str], machine: str = platform.machine()) -> dict[str, tuple[str, ...]]:
    """The best level for a CPU with these flags (/proc/cpuinfo), and `plain`, which it is compared with.

    Where the best one never ran on hardware, the next ones too, down to one that did, in case that it fails here."""
    found = runnable_levels(flags, machine)
    best_first = list(found)[::-1]
    tried = next((i for i, name in enumerate(best_first) if name not in UNTRIED), 0)
    return {name: found[name] for name in dict.fromkeys(("plain", *best_first[tried::-1]))}


def runnable_levels(flags: Collection[str], machine: str = platform.machine()) -> dict[str, tuple[str, ...]]:
    """All levels for a CPU with these flags, the best one last."""
    return {name: own for name, own in all_levels(machine).items() if NEEDED.get(name, set()) <= set(flags)}


def cache_folder() -> Path:
    """Where compiled kernels are kept. Raises StartError where there is no such place."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "text-embeddings-inference"
    except RuntimeError:
        hint = "set XDG_CACHE_HOME to a folder that can be written"
        raise StartError("the native kernels can't be kept: the user has no home directory", hint=hint) from None


def built_library(folder: Path, levels: Mapping[str, Sequence[str]], flags: Sequence[str] = ()) -> Path:
    """The library with these levels, from the folder or, if it is not there, compiled into it. flags: as of `build`.

    Raises StartError where there is no compiler, or it fails, or the folder can't be written."""
    path = folder / f"kernels-{_digest(levels, flags)}.so"
    try:
        if not path.exists():
            logger.info("Compiling the native kernels (%s) into %s, once", ", ".join(levels), folder)
            build(path, levels, compiler=_compiler(), flags=flags)
    except OSError as problem:
        hint = "set XDG_CACHE_HOME to a folder that can be written"
        raise StartError(f"the native kernels can't be kept: {problem}", hint=hint) from None
    return path


def build(
    out: Path, levels: Mapping[str, Sequence[str]], *, compiler: Sequence[str], flags: Sequence[str] = ()
) -> None:
    """Compiles the library to `out`, which appears when it is complete. flags: further ones, for all sources.

    Raises StartError with the compiler's words where it fails.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        objects = Path(folder)
        made = [f"-DLEVEL_{name.upper()}" for name in levels]
        jobs = [[str(SOURCES / name), *made, "-o", str(objects / f"{name}.o")] for name in COMMON]
        for name, own in levels.items():
            jobs.append([str(SOURCES / "level.c"), f"-DLEVEL={name}", *own, "-o", str(objects / f"{name}.o")])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: _run([*compiler, *FLAGS, *flags, "-c", *job]), jobs))
        whole = objects / "library.so"
        _run([*compiler, *flags, "-shared", "-pthread", *(job[-1] for job in jobs), "-lm", "-o", str(whole)])
        os.replace(whole, out)


def _compiler() -> list[str]:
    if compiler := find_compiler():
        return compiler
    raise StartError("there is no C compiler for the native kernels", hint="install gcc, or `pip install ziglang`")


def _digest(levels: Mapping[str, Sequence[str]], flags: Sequence[str]) -> str:
    """Of all sources and flags."""
    digest = hashlib.sha256(repr((FLAGS, tuple(flags), sorted(levels.items()))).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as problem:
        raise StartError(f"no compiler starts as `{command[0]}`: {problem.strerror}", hint="set CC to one") from None
    except subprocess.CalledProcessError as problem:
        raise StartError(f"the native kernels could not be compiled: {problem.stderr.strip()}") from None
