"""docs/performance.md, its charts and the README say what bench/results says."""

from __future__ import annotations

from pathlib import Path

from bench.report import records
from scripts import performance_page as page
from tests.bench.figures import some_report

ROOT = Path(__file__).parents[2]


def test_page_shows_the_newest_run_of_each_kind(tmp_path: Path) -> None:
    records.save(some_report(date="2026-01-30T12:00:00+00:00"), tmp_path)
    for kind in ("bench", "peers"):
        records.save(some_report(kind), tmp_path)
    runs = page.read_runs(tmp_path)
    assert [(run.kind, run.machine.date[:10]) for run in runs] == [("bench", "2026-01-31"), ("peers", "2026-01-31")]
    text = page.write_page(runs)
    assert "### This server, 2026-01-31" in text
    assert "### This server and others, 2026-01-31" in text
    assert text.count("](charts/") == 4


def test_docs_are_current() -> None:
    for file, content in page.files(ROOT, page.RESULTS).items():
        assert file.read_text() == content, f"{file.name}: run `make bench-charts`"
