"""docs/models.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from scripts.models_page import page
from text_embeddings_inference.models import architectures

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make models-page`"


def test_page_names_every_architecture() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for model_type in architectures():
        assert any(f"`{model_type}`" in row for row in rows)
