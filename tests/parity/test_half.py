"""Half precision on PyTorch: as near to the recorded outputs as Transformers itself comes in that type."""

from __future__ import annotations

import numpy as np
import pytest

from engines import Models, Row, fixture
from extras import needs_torch
from oracle.expected import FIXTURES, Case
from text_embeddings_inference.inference.results import sigmoid

COSINES = {"float16": 0.9999, "bfloat16": 0.999}
SCORES = {"float16": 5e-3, "bfloat16": 5e-2}
"""Largest difference of a probability."""


def fault(row: Row, case: Case, dtype: str) -> float:
    """How far the row is off, in terms of what it may be."""
    if case.probabilities:
        return float(np.abs(sigmoid(row.pooled) - case.probabilities["sigmoid"]).max()) / SCORES[dtype]
    cosine = np.dot(row.pooled, case.output) / np.linalg.norm(row.pooled) / np.linalg.norm(case.output)
    return float(1 - cosine) / (1 - COSINES[dtype])


@needs_torch
@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("dtype", COSINES)
def test_half_precision_is_faithful(models: Models, dtype: str, layout: str, name: str) -> None:
    cases = fixture(name).cases
    rows = models.get(f"torch-{layout}-{dtype}", name).run([case.encoding for case in cases])
    worst = max(fault(row, case, dtype) for row, case in zip(rows, cases, strict=True))
    print(f"\n{name}: {worst:.2f} of the tolerance", end=" ")
    assert worst <= 1
    assert worst > 0, "it ran in float32"
