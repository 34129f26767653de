"""How long is measured, of what, and on which machine."""

from __future__ import annotations

import os
import time
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
    assert machine.missing_for("int8", ("avx2",)) is None
    assert machine.missing_for("int16", ("avx2", "avx512_vnni")) is None
    assert "bfloat16" in (machine.missing_for("int16", ("avx2", "avx512_bf16")) or "")
    assert "avx2" in (machine.missing_for("int16", ("asimddp",)) or "")


def test_level_and_type_of_a_cpu() -> None:
    for sets, level, dtype in (
        (("amx_bf16", "avx512_bf16", "avx2"), "AMX", "bfloat16"),
        (("avx512_bf16", "avx2"), "avx512_bf16", "bfloat16"),
        (("avx_vnni", "avx2"), "AVX2", "int16"),
        (("asimddp",), None, "float32"),
    ):
        assert (machine.level_of(sets), machine.chosen_dtype(sets)) == (level, dtype)


def test_this_machine_can_be_described() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert here.versions["numpy"][0].isdigit()
    assert all(rate > 0 for rate in machine.sgemm(repetitions=1))


def test_arguments() -> None:
    plan = parse(["--model", "m", "--base", "b", "--dtypes", "float32,int8"])
    assert plan.models == {records.MINILM: Path("m"), records.BASE: Path("b")}
    assert plan.dtypes == ("float32", "int8")
    assert plan.engines == ("auto", "openvino")
    assert parse(["--model", "m", "--engines", "native,openvino"]).engines == ("native", "openvino")
    assert parse(["--model", "m", "--quick"]).results is None
    for wrong in (["--dtypes", "float31"], ["--engines", "opencl"], ["--engines", ""]):
        with pytest.raises(SystemExit):
            parse(["--model", "m", *wrong])


def test_sgemm_waits_for_a_quiet_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    busy = iter([1.5, 0.9, 0.1])
    monkeypatch.setattr(machine, "busy_cores", lambda: next(busy))
    monkeypatch.setattr(machine, "disturbed", lambda measure: (measure(), False))
    monkeypatch.setattr(machine, "sgemm", lambda: [100.0, 300.0, 200.0] if next(busy, None) is None else [])
    assert measure.measure_sgemm() == 200
    assert capsys.readouterr().err == ""


def test_sgemm_that_was_disturbed_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = iter([([50.0], True), ([100.0], False)])
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(machine, "disturbed", lambda measure: next(tries))
    assert measure.measure_sgemm() == 100
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(machine, "disturbed", lambda measure: ([50.0], True))
    assert measure.measure_sgemm() == 50
    assert "something else runs" in capsys.readouterr().err


def test_what_else_runs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    for busy, is_disturbed in ((2.1, False), (2.9, True)):
        clocks = {"_busy_ticks": [0, busy * ticks], "_children_seconds": [5.0, 7.0], "monotonic": [10.0, 11.0]}
        for name, values in clocks.items():
            where = time if name == "monotonic" else machine
            monkeypatch.setattr(where, name, iter(values).__next__)
        assert machine.disturbed(lambda: [7.0]) == ([7.0], is_disturbed)
        monkeypatch.undo()


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
