"""CPU quotas of control groups, read from a made-up /proc and /sys."""

from pathlib import Path

import pytest

from text_embeddings_inference.machine import (
    available_memory,
    cgroup_quota,
    cpu_flags,
    cpu_model,
    has_vnni,
    usable_cpus,
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/pod/task\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/pod/task/cpu.max": "max 100000\n",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "0::/not/visible/here\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4.0),
        (
            {
                "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cgroup_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(("affinity", "quota", "cpus"), [(8, None, 8), (8, 2.5, 3), (2, 4.0, 2), (4, 0.2, 1)])
def test_usable_cpus(monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, cpus: int) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    monkeypatch.setattr("text_embeddings_inference.machine.cgroup_quota", lambda: quota)
    assert usable_cpus() == cpus


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", False),
    ],
)
def test_vnni(tmp_path: Path, cpuinfo: str, found: bool) -> None:
    assert has_vnni(tree(tmp_path, {"proc/cpuinfo": cpuinfo})) == found
    assert not has_vnni(tmp_path / "elsewhere")


def test_what_an_arm_cpu_says(tmp_path: Path) -> None:
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    root = tree(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert cpu_flags(root) == {"fp", "asimd", "asimddp"}
    assert cpu_model(root) == "0x41 0xd40 fp asimd asimddp"


MEMINFO = "MemTotal:       1000 kB\nMemAvailable:    600 kB\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 600 * 1024),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/pod/task\n",
                "sys/fs/cgroup/pod/memory.max": "5000\n",
                "sys/fs/cgroup/pod/memory.current": "1000\n",
                "sys/fs/cgroup/pod/task/memory.max": "max\n",
                "sys/fs/cgroup/pod/task/memory.current": "900\n",
            },
            4000,
        ),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], free: int | None) -> None:
    assert available_memory(tree(tmp_path, files)) == free
