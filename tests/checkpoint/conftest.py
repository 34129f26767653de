from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def models() -> Path:
    """The folder of fixture checkpoints."""
    return Path(__file__).parent.parent / "fixtures" / "models"
