"""What the clients must get."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tests.clients.conftest import FIXTURES, ROOT

RECORDED = ROOT / "tests" / "contract" / "recorded" / "embedding.jsonl"
TOLERANCE = 1e-5


def recorded(name: str) -> Any:
    """What text-embeddings-inference 1.9.3 answered to the request of this name (MiniLM)."""
    for line in RECORDED.read_text().splitlines():
        exchange = json.loads(line)
        if exchange["request"]["id"] == name:
            return exchange["response"]["json"]
    raise LookupError(name)


def expected(fixture: str) -> list[dict[str, Any]]:
    """Texts with the outputs that Transformers gave."""
    texts: list[dict[str, Any]] = json.loads((FIXTURES / fixture / "expected.json").read_text())["texts"]
    assert len(texts) >= 8
    return texts


def expected_ranks(fixture: str) -> dict[str, Any]:
    """A query and texts with the scores that Transformers gave."""
    ranks: dict[str, Any] = json.loads((FIXTURES / fixture / "expected.json").read_text())["rerank"]
    return ranks


def check_close(actual: ArrayLike, wanted: ArrayLike, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)
    assert np.shape(actual) == np.shape(wanted)


def unit(vector: ArrayLike) -> ArrayLike:
    return np.asarray(vector) / np.linalg.norm(vector)
