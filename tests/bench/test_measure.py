"""How long is measured, of what, and on which machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.__main__ import parse
from bench.load import measure, texts
from bench.report import machine, records
from tests.bench.figures import measurement, round_of


def test_long_waits_are_measured_for_longer() -> None:
    load = texts.Load("x", 32, [b"{}"], [512])
    assert measure.seconds_of(load, 4, {}) == 4
    assert measure.seconds_of(load, 4, {"y": [round_of(205, measurement(1024))]}) == pytest.approx(2.2 * 16)
    assert measure.seconds_of(load, 4, {"y": [round_of(205, measurement(100))]}) == measure.LONGEST_S
    assert measure.seconds_of(load, 4, {"y": [round_of(205, measurement(1e6))]}) == 4


def test_number_types_without_instructions_are_left_out() -> None:
    assert machine.missing_for("float32", ()) is None
    assert machine.missing_for("bfloat16", ("avx512_bf16", "avx2")) is None
    assert "avx512_bf16" in (machine.missing_for("bfloat16", ("avx2",)) or "")
    assert machine.missing_for("int8", ("avx_vnni",)) is None


def test_this_machine_can_be_described() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert here.versions["numpy"][0].isdigit()
    assert all(rate > 0 for rate in machine.sgemm(repetitions=1))


def test_arguments() -> None:
    plan = parse(["--model", "m", "--base", "b", "--dtypes", "float32,int8"])
    assert plan.models == {records.MINILM: Path("m"), records.BASE: Path("b")}
    assert plan.dtypes == ("float32", "int8")
    assert parse(["--model", "m", "--quick"]).results is None
    with pytest.raises(SystemExit):
        parse(["--model", "m", "--dtypes", "float31"])


def test_sgemm_waits_for_a_quiet_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    busy = iter([1.5, 0.9, 0.1])
    monkeypatch.setattr(machine, "busy_cores", lambda: next(busy))
    monkeypatch.setattr(machine, "sgemm", lambda: [100.0, 300.0, 200.0] if next(busy, None) is None else [])
    assert measure.measure_sgemm() == 200
    assert capsys.readouterr().err == ""


def test_sgemm_on_a_machine_that_is_never_quiet_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "busy_cores", lambda: 2.0)
    monkeypatch.setattr(machine, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(machine, "sgemm", lambda: [100.0])
    assert measure.measure_sgemm() == 100
    assert "something else runs" in capsys.readouterr().err


def test_busy_cores_are_counted() -> None:
    assert 0 <= machine.busy_cores(0.05) <= 2 * (os.cpu_count() or 1)
