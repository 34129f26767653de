"""What this process may use: CPUs by affinity mask and cgroup quota, what they can compute, memory, and GPUs."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GPU_DEVICES = ("nvidia[0-9]*", "nvmap", "dxg", "kfd")
"""What drivers put into /dev: NVIDIA's, that of its Jetson boards, Windows' for Linux guests, AMD's."""


def usable_cpus() -> int:
    """The smaller of affinity mask and cgroup quota (rounded up), at least 1."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cpus, quota = len(os.sched_getaffinity(0)), cgroup_quota()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU quota on the way from this process's cgroup up to the mount, in CPUs; None: no quota.

    Reads cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`, `cpu.cfs_period_us`) under `root`. Groups that are not
    visible, as in a container that shows only its own part of the tree, are passed over.
    """
    quotas: list[float] = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            quotas += _quotas(root / "sys/fs/cgroup", group, "cpu.max")
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                quotas += _quotas(root / "sys/fs/cgroup" / name, group, "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return min(quotas, default=None)


def has_vnni(root: Path = Path("/")) -> bool:
    """Whether the CPUs multiply 8-bit integers four at a time (AVX-VNNI or AVX512-VNNI), as /proc/cpuinfo says."""
    return bool(cpu_flags(root) & {"avx512_vnni", "avx_vnni"})


def cpu_flags(root: Path = Path("/")) -> set[str]:
    """What the CPUs can do, as /proc/cpuinfo says (on ARM under another name)."""
    return set(_features(root).split())


def cpu_model(root: Path = Path("/")) -> str:
    """The name of the CPUs, and what they can do."""
    names = ("model name", "CPU implementer", "CPU variant", "CPU part")  # the first of x86-64, the others of ARM
    return " ".join(filter(None, (*(_cpu_field(name, root) for name in names), _features(root))))


def _features(root: Path) -> str:
    return _cpu_field("flags", root) or _cpu_field("Features", root)


def _cpu_field(name: str, root: Path) -> str:
    """Of the first CPU in /proc/cpuinfo; empty where it is not there."""
    lines = (line for line in _lines(root / "proc/cpuinfo") if line.partition(":")[0].strip() == name)
    return next((line.partition(":")[2].strip() for line in lines), "")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping: of the machine, and under cgroup v2's `memory.max`; None: not known."""
    free: list[int] = []
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            for directory in _ancestors(root / "sys/fs/cgroup", group):
                limit, used = _words(directory / "memory.max"), _words(directory / "memory.current")
                if limit and used and limit[0] != "max":
                    free.append(max(0, int(limit[0]) - int(used[0])))
    return min(free, default=None)


def has_gpu_driver(dev: Path = Path("/dev")) -> bool:
    """Whether PyTorch might find a GPU. To ask PyTorch itself takes seconds, which a start on a CPU should not."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return any(found for name in GPU_DEVICES for found in dev.glob(name))


def _quotas(mount: Path, group: str, *files: str) -> Iterator[float]:
    """files: hold quota and period, in this order."""
    for directory in _ancestors(mount, group):
        fields = [word for file in files for word in _words(directory / file)]
        if len(fields) == 2 and fields[0] not in ("max", "-1"):
            yield int(fields[0]) / int(fields[1])


def _ancestors(mount: Path, group: str) -> Iterator[Path]:
    """The directory of `group` and of every group above it, the mount itself last."""
    path = PurePosixPath(group.lstrip("/"))
    return (mount / part for part in (path, *path.parents))


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # not there in the root group, or not visible from here
        return []
