"""What hardware there may be, asked without importing what would use it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

GPU_DEVICES = ("nvidia[0-9]*", "nvmap", "dxg", "kfd")
"""What drivers put into /dev: NVIDIA's, that of its Jetson boards, Windows' for Linux guests, AMD's."""


def has_gpu_driver(dev: Path = Path("/dev")) -> bool:
    """Whether PyTorch might find a GPU. To ask PyTorch itself takes seconds, which a start on a CPU should not."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return any(found for name in GPU_DEVICES for found in dev.glob(name))
