"""Compares all levels of the native kernels with the plain ones, those that this machine can't run in emulation too.

    python scripts/levels.py python-that-has-ziglang [--no-qemu]        (make test-levels)

tests/native/levels/driver.c is compiled with the levels, and run: on x86-64 those of this CPU as they are, by zig and
by the system's compiler, AVX-VNNI and AMX with their instructions in plain C (tests/native/levels/emulated.h); those of
64-bit ARM by zig, in qemu-aarch64. Levels with AVX-512 have no emulation: on a CPU without it they are compiled, and a
line says so. Fails where zig or qemu is missing; with --no-qemu the levels of ARM are only compiled.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native.build import COMMON, FLAGS, LEVELS, NEEDED, SOURCES, find_compiler

FOLDER = Path(__file__).parent.parent / "tests/native/levels"
EMULATED = {
    "avx_vnni": ("avx2", ("__AVXVNNI__",)),
    "amx": ("avx512_bf16", ("__AMX_TILE__", "__AMX_BF16__", "__AMX_INT8__")),
}
"""Level: the level whose instructions it needs all the same, and what a compiler would define for the others."""
ARM = "aarch64"


def main() -> int:
    zig = [sys.argv[1], "-m", "ziglang", "cc", "-mcpu=baseline"]
    if subprocess.run([*zig, "--version"], capture_output=True).returncode:
        sys.exit(f"there is no zig to compile the levels of other machines: `{sys.argv[1]} -m pip install ziglang`")
    qemu = None if "--no-qemu" in sys.argv else shutil.which("qemu-aarch64")
    if not qemu and "--no-qemu" not in sys.argv:
        sys.exit("there is no qemu-aarch64 to run the levels of ARM: install qemu-user, or say --no-qemu")
    with tempfile.TemporaryDirectory() as folder:
        failed = _run_here(zig, Path(folder) / "zig")
        compiler = find_compiler()
        if compiler and "ziglang" not in compiler:
            failed |= _run_here(compiler, Path(folder) / "system")
        if platform.machine() != ARM:
            failed |= _run_arm(zig, qemu, Path(folder) / "arm")
    return int(failed)


def _run_here(compiler: Sequence[str], folder: Path) -> bool:
    """Levels of this CPU, and what can be emulated on it. Returns whether one failed."""
    print(f"== compiled by {' '.join(compiler)}")
    flags = cpu_flags()
    levels = dict(LEVELS[platform.machine()])
    run = [name for name in levels if name != "plain" and NEEDED[name] <= flags]
    for name, (base, macros) in EMULATED.items():
        if name in levels and name not in run and NEEDED[base] <= flags:
            defined = [f"-D{macro}=1" for macro in macros]
            levels[name] = (*levels[base], *defined, "-include", str(FOLDER / "emulated.h"))
            run.append(name)
            print(f"{name}: what this CPU does not have is done in plain C")
    for name in sorted(set(levels) - {"plain", *run}):
        print(f"{name}: only compiled, this CPU has no {', '.join(sorted(NEEDED[name] - flags))}")
    return _run([str(_build(compiler, levels, folder))], run)


def _run_arm(zig: Sequence[str], qemu: str | None, folder: Path) -> bool:
    print("== 64-bit ARM, by zig, in qemu" if qemu else "== 64-bit ARM: only compiled, by zig")
    driver = _build([*zig, "-target", f"{ARM}-linux-musl", "-static"], LEVELS[ARM], folder)
    return qemu is not None and _run(
        [qemu, "-cpu", "max", str(driver)], [name for name in LEVELS[ARM] if name != "plain"]
    )


def _build(compiler: Sequence[str], levels: Mapping[str, Sequence[str]], folder: Path) -> Path:
    """The driver, with these levels."""
    folder.mkdir()
    flags = [*FLAGS, "-Werror"]
    made = [f"-DLEVEL_{name.upper()}" for name in levels]
    jobs = [[str(SOURCES / name), *made, "-o", str(folder / f"{name}.o")] for name in COMMON]
    jobs.append([str(FOLDER / "driver.c"), f"-I{SOURCES}", "-o", str(folder / "driver.o")])
    for name, own in levels.items():
        jobs.append([str(SOURCES / "level.c"), f"-DLEVEL={name}", *own, "-o", str(folder / f"level-{name}.o")])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: subprocess.run([*compiler, *flags, "-c", *job], check=True), jobs))
    driver = folder / "driver"
    subprocess.run([*compiler, "-pthread", *(job[-1] for job in jobs), "-lm", "-o", str(driver)], check=True)
    return driver


def _run(driver: Sequence[str], levels: Sequence[str]) -> bool:
    """Each level by itself, side by side. Returns whether one failed."""

    def run(level: str) -> bool:
        done = subprocess.run([*driver, level], stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            print(f"{level}: FAILED ({done.returncode})", flush=True)
        return done.returncode != 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return any(list(pool.map(run, levels)))


if __name__ == "__main__":
    sys.exit(main())
