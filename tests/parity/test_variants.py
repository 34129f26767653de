"""Checkpoints with something that is easily overlooked in their files, against values of the reference libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from text_embeddings_inference import load

VARIANTS = Path(__file__).parents[1] / "fixtures" / "variants"


@pytest.mark.parametrize("name", sorted(path.name for path in VARIANTS.iterdir()))
def test_values_of_the_reference(name: str, caplog: pytest.LogCaptureFixture) -> None:
    expected: dict[str, Any] = json.loads((VARIANTS / name / "expected.json").read_text())
    with load(VARIANTS / name, dtype="float32") as model:
        if expected["task"] == "embedding":
            vectors = model.embed([text["text"] for text in expected["texts"]])
            wanted = np.array([text["embedding"] for text in expected["texts"]])
            assert (vectors * wanted).sum(1).min() > 0.99999
        for case in expected.get("rerank", ()):
            ranks = model.rerank(case["query"], case["texts"], raw_scores=True)
            assert [rank.index for rank in ranks] == case["order"]
            scores = {rank.index: rank.score for rank in ranks}
            assert np.allclose([scores[place] for place in range(len(scores))], case["raw_scores"], atol=1e-4)
    assert expected.get("warns", "") in caplog.text
