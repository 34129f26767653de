"""What a run found out is saved, read again, and becomes medians and tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.load import texts
from bench.report import records, tables
from tests.bench.figures import measurement, round_of, some_report


def test_rounds_become_medians_and_errors_a_sum() -> None:
    rounds = [round_of(205, measurement(rate, errors=1)) for rate in (1000, 9000, 2000)]
    row = records.summary(texts.RAGGED_8, rounds)
    assert row.tokens_per_second == 2000
    assert row.errors == 3
    assert row.waste == 1.125


def test_report_is_saved_by_date_and_machine_and_read_again(tmp_path: Path) -> None:
    file = records.save(some_report(), tmp_path)
    assert file.name == "2026-01-31-some-cpu-2-0-ghz-avx512-bf16-bench.json"
    assert records.read(file) == some_report()
    file.write_text(json.dumps({"summary": []}))
    assert records.read(file) is None


def test_tables() -> None:
    text = tables.render(some_report())
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(row) for row in block.splitlines()}) == 1, "columns are not aligned"
    assert "median 205, 100 to 210 in 3 samples (54% apart) GFLOP/s" in text
    assert re.search(r"server over engine alone \| +0.80, missed", text)
    assert re.search(r"MiniLM-L6: start to first answer +\| +0.60 s, met", text)
    assert "not measured: int8: not there" in text
