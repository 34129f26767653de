"""The charts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from bench.report import charts
from tests.bench.figures import some_report


def test_charts() -> None:
    drawn = charts.draw_all(some_report("peers"))
    assert sorted(drawn) == [f"{what}-batch-{size}.svg" for what in ("latency", "throughput") for size in (1, 32)]
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        ours, theirs = (
            [bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.get("class") == kind]
            for kind in ("ours", "theirs")
        )
        assert len(ours) == len(theirs) == 1
        assert float(ours[0].get("y", "")) < float(theirs[0].get("y", "")), "the best comes first"
        for told in ("Some CPU @ 2.0 GHz", "2026-01-31", "0123456789", "torch 9.9", "a &lt;peer&gt;"):
            assert told in svg
    widths = [
        float(width) for width in re.findall(r'class="(?:ours|theirs)".* width="(\S+)"', drawn["latency-batch-1.svg"])
    ]
    assert widths == pytest.approx([charts.BAR_WIDTH / 2, charts.BAR_WIDTH])


def test_charts_need_a_run_with_others() -> None:
    assert charts.draw_all(None) == {}
