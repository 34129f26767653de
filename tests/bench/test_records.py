"""What a run found out is saved, read again, and becomes medians and tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
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
    assert re.search(r"MiniLM-L6: start to first answer +\| +0.60 s, missed", text)
    assert "not measured: int8: not there" in text
    assert re.search(r"32 x 128 tokens, one thread +\| +2.00 x OpenVINO, met", text)
    assert re.search(r"one thread: of the peak +\| +80.00 %, missed", text)
    assert re.search(r"32 x 128 tokens \| +bfloat16, bfloat16 \| +1 \| +20.00 \(10.00\)", text)


def test_goals_are_those_of_the_server_as_auto_has_it() -> None:
    report = some_report()
    openvino = [replace(subject, name=records.ENGINES["openvino"], start=[0.1]) for subject in report.subjects]
    assert replace(report, subjects=openvino + report.subjects).chosen == report.subjects
    both = tables.render(replace(report, subjects=openvino + report.subjects))
    assert re.search(r"MiniLM-L6: start to first answer +\| +0.60 s, missed", both)
    assert both.count("this server on OpenVINO, bfloat16 |") > 3
    alone = tables.render(replace(report, subjects=openvino))
    assert re.search(r"MiniLM-L6: start to first answer +\| +0.10 s, met", alone)
    assert "| this server on OpenVINO, in " in alone


def test_runs_without_engines_in_process_are_shown() -> None:
    report = some_report()
    before = replace(report, subjects=[replace(subject, in_process=[]) for subject in report.subjects])
    assert "| in process " in tables.render(report)
    assert "| in process " not in tables.render(before)
