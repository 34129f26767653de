"""What the figures were taken on: the CPU, its instruction sets, how fast it multiplies matrices, and the versions."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

INSTRUCTION_SETS = (
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "avx512f",
    "avx2",
    "sve",
    "i8mm",
    "bf16",
    "asimddp",
)
"""The flags of /proc/cpuinfo that decide how fast an encoder runs, the widest first."""

PACKAGES = ("text-embeddings-inference", "openvino", "numpy", "tokenizers", "httptools", "uvloop")


@dataclass(frozen=True, slots=True)
class Machine:
    """date: ISO 8601, UTC; cores: those this process may use; commit: of this checkout, with `+` if it has changes."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    instruction_sets: tuple[str, ...]
    system: str
    commit: str
    versions: dict[str, str]

    @property
    def slug(self) -> str:
        """A file name's part: the CPU and its widest instruction set, as clouds hide the exact model."""
        widest = self.instruction_sets[:1]
        return re.sub(r"[^a-z0-9]+", "-", " ".join((self.cpu, *widest)).lower()).strip("-")


NATIVE = {
    "float32": (),
    "bfloat16": ("amx_bf16", "avx512_bf16", "bf16"),
    "int16": ("avx2",),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "avx2", "i8mm", "asimddp"),
}
"""Number types by the flags that show that a CPU computes in them; one of the flags is enough."""
VNNI = ("amx_int8", "avx512_vnni", "avx_vnni")
"""Of x86: OpenVINO multiplies in 8 bits with one of these only."""
LEVELS = {"amx_bf16": "AMX", "avx512_bf16": "avx512_bf16", "avx2": "AVX2"}
"""The kinds of CPU that goals are set for, by the flag that makes the difference, the best first."""


def level_of(instruction_sets: Sequence[str]) -> str | None:
    """The kind of CPU; None for one that no goals are set for."""
    return next((level for flag, level in LEVELS.items() if flag in instruction_sets), None)


def chosen_dtype(instruction_sets: Sequence[str]) -> str:
    """What `--dtype auto` is on such a CPU, where the native engine runs the model."""
    return next((dtype for dtype in ("bfloat16", "int16") if has_instructions(dtype, instruction_sets)), "float32")


def has_instructions(dtype: str, instruction_sets: Sequence[str]) -> bool:
    """Whether a CPU computes in a number type natively."""
    return not NATIVE[dtype] or bool(set(NATIVE[dtype]) & set(instruction_sets))


def missing_for(dtype: str, instruction_sets: Sequence[str]) -> str | None:
    """Why a number type is of no use on a CPU; None if it is of some."""
    if not has_instructions(dtype, instruction_sets):
        return f"this CPU has none of {', '.join(NATIVE[dtype])}, and would emulate it"
    if dtype == "int16" and has_instructions("bfloat16", instruction_sets):
        return "this CPU computes in bfloat16, which takes as little memory and has no limits to keep"
    return None


def openvino_dtype(dtype: str, instruction_sets: Sequence[str]) -> str:
    """What of OpenVINO stands beside a number type of the native engine: the same, where OpenVINO computes in it."""
    without_vnni = "avx2" in instruction_sets and not set(VNNI) & set(instruction_sets)
    return "float32" if dtype == "int16" or (dtype == "int8" and without_vnni) else dtype


def describe() -> Machine:
    """This machine. Linux only, like the rest of the bench."""
    flags = _cpu_flags()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(pages / 2**30, 1),
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        commit=_commit(),
        versions={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    )


def _cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())


def _cpu_name() -> str:
    """lscpu knows the names of Arm cores, which /proc/cpuinfo gives as numbers."""
    if shutil.which("lscpu"):
        env = os.environ | {"LC_ALL": "C"}
        text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env=env).stdout
        found = re.search(r"^(?:BIOS )?Model name:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or not shutil.which("git"):
        return "unknown"
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
    changes = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=True)
    return commit.stdout.strip() + ("+" if changes.stdout else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


SGEMM_SIZE = 1536
SGEMM_THREADS = 2

QUIET_CORES = 0.15
"""Cores' worth of processor time: a machine on which all processes together take less does nothing else."""
QUIET_S = 0.3
"""Seconds over which that is measured."""
LONGEST_WAIT_S = 30.0
"""Seconds that a measurement waits for a quiet machine."""


def busy_cores(seconds: float = QUIET_S) -> float:
    """How many cores all processes of the machine keep busy, this one's sleep excluded."""
    before = _busy_ticks()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def wait_until_quiet() -> bool:
    """Waits until nothing else runs; False if that did not come within `LONGEST_WAIT_S`."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while busy_cores() > QUIET_CORES:
        if time.monotonic() > deadline:
            return False
    return True


def disturbed(measure: Callable[[], list[float]]) -> tuple[list[float], bool]:
    """What a measurement in child processes gives, and whether something else ran meanwhile: a server that tunes
    itself in a quiet moment finds the same one."""
    ticks, own, start = _busy_ticks(), _children_seconds(), time.monotonic()
    rates = measure()
    seconds = time.monotonic() - start
    others = (_busy_ticks() - ticks) / os.sysconf("SC_CLK_TCK") - (_children_seconds() - own)
    return rates, others > QUIET_CORES * seconds


def _children_seconds() -> float:
    """Processor time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _busy_ticks() -> int:
    """Since the machine started: all but idle and waiting for disks; guests are part of the first two."""
    user, nice, system, _idle, _waiting, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    )
    return user + nice + system + sum(interrupts)


def sgemm(repetitions: int = 10) -> list[float]:
    """GFLOP/s of NumPy's float32 matrix product, 1536 x 1536 x 1536 on two threads, once per repetition.

    It runs in a process of its own: a BLAS library takes its number of threads from the environment at import, and
    keeps threads spinning afterwards.
    """
    env = os.environ | {f"{library}_NUM_THREADS": str(SGEMM_THREADS) for library in ("OPENBLAS", "OMP", "MKL")}
    # An override of the kernel that OpenBLAS would choose would measure the override.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        env.pop(name, None)
    command = [sys.executable, "-c", _SGEMM, str(SGEMM_SIZE), str(repetitions)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    return [float(value) for value in json.loads(text)]


_SGEMM = """
import json, sys, time
import numpy as np

size, repetitions = map(int, sys.argv[1:])
random = np.random.default_rng(0)
a, b = (random.standard_normal((size, size), np.float32) for _ in range(2))
c = a @ b
rates = []
for _ in range(repetitions):
    start = time.perf_counter()
    np.matmul(a, b, out=c)
    rates.append(2 * size**3 / (time.perf_counter() - start) / 1e9)
print(json.dumps(rates))
"""
