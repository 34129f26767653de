"""Every metric that the dashboard asks for exists, and every one of ours is shown."""

from __future__ import annotations

import re

from tests.deploy.dashboard import DASHBOARD, expressions
from text_embeddings_inference.telemetry.metrics import Metrics

INSTRUMENTS = {found.name: found for found in Metrics(512).instruments}
ASKED = {name for expression in expressions("1m") for name in re.findall(r"\btei?_\w+", expression)}


def series(name: str) -> list[str]:
    """The names under which Prometheus keeps a metric."""
    histogram = INSTRUMENTS[name].kind == "histogram"
    return [f"{name}_{part}" for part in ("bucket", "sum", "count")] if histogram else [name]


def test_metrics_exist() -> None:
    there = {kept for name in INSTRUMENTS for kept in series(name)}
    assert ASKED
    assert not ASKED - there


def test_labels_exist() -> None:
    for expression in expressions("1m"):
        for label in re.findall(r"by \((\w+)\)", expression):
            (name,) = set(re.findall(r"\btei?_\w+", expression))
            assert label == "le" if name.endswith("_bucket") else label in INSTRUMENTS[name].labels


def test_our_own_metrics_are_shown() -> None:
    assert not {name for name in INSTRUMENTS if name.startswith("tei_")} - ASKED


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
