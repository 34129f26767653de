"""docs/metrics.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from scripts.metrics_page import page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make metrics-page`"
