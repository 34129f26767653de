"""The figures of overload and soak come into docs/reliability.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.stress.overload import Overload
from bench.stress.soak import Soak
from scripts.reliability_page import BEGIN, END, read_overload, read_soak, table, with_figures

OVERLOAD = Overload(100, 1000, 95, 400, 500, 1.5, 8, 512, 0)
SOAK = Soak(600, {200: 9, 400: 2}, 0, 3, 180, 400, 410, 0.0)


def test_page(tmp_path: Path) -> None:
    (tmp_path / "overload").write_text(json.dumps(asdict(OVERLOAD)))
    (tmp_path / "soak").write_text(json.dumps(asdict(SOAK)))
    found = table(read_overload(tmp_path / "overload"), read_soak(tmp_path / "soak"))
    assert "| goodput under overload | 90 % of the peak | 95% (95 of 100) |" in found
    assert "400 to 410 MB (2.5%)" in found
    page = with_figures(f"a\n{BEGIN}\nold\n{END}\nb\n", found)
    assert page == f"a\n{BEGIN}\n{found}\n{END}\nb\n"
    assert with_figures(page, found) == page
    assert table(read_overload(tmp_path / "none"), read_soak(tmp_path / "none")) == "\nNot measured yet.\n"
