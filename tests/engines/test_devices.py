"""What is looked for before PyTorch is asked for a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from text_embeddings_inference import machine as machine_module
from text_embeddings_inference.machine import has_gpu_driver

on_linux = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such files")


@on_linux
@pytest.mark.parametrize("name", ["nvidia0", "nvidia12", "nvmap", "dxg", "kfd"])
def test_a_drivers_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert has_gpu_driver(tmp_path)


@on_linux
@pytest.mark.parametrize("name", ["null", "nvidiactl", "nvme0"])
def test_other_files(tmp_path: Path, name: str) -> None:
    """`nvidiactl` is there in containers that were given no GPU."""
    (tmp_path / name).touch()
    assert not has_gpu_driver(tmp_path)


@pytest.mark.parametrize(("machine", "expected"), [("arm64", True), ("x86_64", False)])
def test_macs(machine: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module.sys, "platform", "darwin")
    monkeypatch.setattr(machine_module.platform, "machine", lambda: machine)
    assert has_gpu_driver() is expected
