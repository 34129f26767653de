"""What a test needs that is not always installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

HAS_TORCH = find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed (`make torch` installs it)")
needs_transformers = pytest.mark.skipif(
    not HAS_TORCH or find_spec("transformers") is None, reason="PyTorch or Transformers is not installed"
)
