"""Engine against engine, directly: one batch of everything a fixture has."""

from __future__ import annotations

import pytest

from engines import Models, difference, fixture
from extras import needs_torch
from native.kernels import needs_kernels
from oracle.expected import FIXTURES

PAIRS = [
    ("openvino", "numpy-padded", 2e-5),
    pytest.param("native", "numpy-packed", 2e-5, marks=needs_kernels),
    ("numpy-packed", "numpy-padded", 1e-6),
    pytest.param("torch-padded", "numpy-padded", 2e-5, marks=needs_torch),
    pytest.param("torch-packed", "torch-padded", 2e-5, marks=needs_torch),
    pytest.param("torch-padded", "openvino", 2e-5, marks=needs_torch),
]
"""Two engines, and how far they may be apart. Far less than from the recorded outputs, which are rounded."""


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize(("one", "other", "tolerance"), PAIRS)
def test_engines_agree(models: Models, one: str, other: str, tolerance: float, name: str) -> None:
    encodings = [case.encoding for case in fixture(name).cases]
    rows = zip(models.get(one, name).run(encodings), models.get(other, name).run(encodings), strict=True)
    largest = max(difference(mine, theirs) for mine, theirs in rows)
    print(f"\n{name}: {one} and {other} differ by {largest:.2g}", end=" ")
    assert largest <= tolerance
