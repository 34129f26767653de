"""8-bit weights: near enough to float32, the same in every batch, and truly quantized."""

from __future__ import annotations

import numpy as np
import pytest

from engines import Models, fixture
from oracle.expected import FIXTURES
from text_embeddings_inference.loading.fidelity import FAITHFUL

CLASSIFIERS = ("classification", "reranker")


@pytest.mark.parametrize("name", FIXTURES)
def test_int8_is_faithful(models: Models, name: str) -> None:
    """Fixtures are small and quantize worse than real models; their 32 channels leave no outlier to average out."""
    encodings = [case.encoding for case in fixture(name).cases]
    batch = np.stack([row.pooled for row in models.get("openvino-int8", name).run(encodings)])
    single = np.stack([models.get("openvino-int8", name).run([encoding])[0].pooled for encoding in encodings])
    exact = np.stack([row.pooled for row in models.get("openvino", name).run(encodings)])
    moved, error = np.abs(batch - single).max(1), np.abs(batch - exact).max()
    if fixture(name).task in CLASSIFIERS:
        batch, single, exact = (rows.reshape(1, -1) for rows in (batch, single, exact))
    cosines = np.sum(batch * exact, 1) / np.linalg.norm(batch, axis=1) / np.linalg.norm(exact, axis=1)
    print(f"\n{name}: smallest cosine {cosines.min():.5f}", end=" ")
    assert cosines.min() >= FAITHFUL
    assert error > 1e-5, "nothing was quantized"
    # With VNNI activations are rounded to 8 bits, too. Sums in float32 depend on the shape of the batch by 1e-7, and
    # what lies half-way between two of the 8-bit values may become either: its token moves by a step.
    assert (moved > 1e-5).mean() <= 0.1
    assert moved.max() <= error / 10
