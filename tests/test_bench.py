"""The bench's texts have the lengths they claim, and its figures mean what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench import machine, report, texts
from bench.load import Measurement
from bench.server import Memory

MODEL = Path(__file__).parent / "fixtures" / "models" / "bert"


def measurement(tokens_per_second: float = 8000, p50_ms: float = 4.0, errors: int = 0) -> Measurement:
    return Measurement(
        requests=100,
        seconds=2.0,
        tokens=round(2 * tokens_per_second),
        p50_ms=p50_ms,
        p95_ms=9.0,
        p99_ms=12.0,
        errors=errors,
        client_cores=0.1,
    )


def round_of(sgemm: float, measured: Measurement) -> report.Round:
    return report.Round(measured, sgemm, server_cores=1.9, padding=0.125, resident_mb=250.0)


def test_texts_have_exact_lengths() -> None:
    lengths = [3, 4, 5, 16, 60, 128] * 20
    made = texts.TextMaker(MODEL).texts(lengths)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert [len(encoding.ids) for encoding in tokenizer.encode_batch(made)] == lengths
    assert len(set(made[5::6])) == 20


def test_texts_are_the_same_on_every_run() -> None:
    lengths = [16, 60, 128]
    assert texts.TextMaker(MODEL).texts(lengths) == texts.TextMaker(MODEL).texts(lengths)


def test_ragged_lengths() -> None:
    lengths = texts.ragged_lengths(4000)
    assert sum(lengths) / 4000 == pytest.approx(60, abs=3)
    assert min(lengths) >= 4
    assert max(lengths) == 256
    assert sorted(lengths)[2000] < 50  # most are short


def test_bodies() -> None:
    assert json.loads(texts.bodies_of(["a"])) == {"inputs": "a"}
    assert json.loads(texts.bodies_of(["a", "b"])) == {"inputs": ["a", "b"]}


def test_throughput_is_compared_with_tei_scaled_by_sgemm() -> None:
    # On half the machine, TEI would reach half of its 7,400 tokens/s.
    half = round_of(report.TEI_SGEMM / 2, measurement(tokens_per_second=7400))
    row = report.summary("128 tokens, 32 connections", [half])
    assert row.times_tei == pytest.approx(2)


def test_latency_is_compared_with_tei_scaled_by_sgemm() -> None:
    # On half the machine, TEI would take twice its 4.9 ms.
    half = round_of(report.TEI_SGEMM / 2, measurement(p50_ms=4.9))
    row = report.summary("16 tokens, 1 connection", [half])
    assert row.times_tei == pytest.approx(2)


def test_rounds_become_medians_and_errors_a_sum() -> None:
    rounds = [round_of(205, measurement(rate, errors=1)) for rate in (1000, 9000, 2000)]
    row = report.summary("ragged, 8 connections", rounds)
    assert row.tokens_per_second == 2000
    assert row.errors == 3
    assert row.times_tei is None


def some_report() -> report.Report:
    names = [*report.TEI, "ragged, 8 connections"]
    return report.Report(
        machine=machine.Machine(
            date="2026-01-31T12:00:00+00:00",
            cpu="Some CPU @ 2.0 GHz",
            cores=2,
            memory_gib=8.0,
            instruction_sets=("avx512_vnni", "avx2"),
            system="Linux",
            commit="0123456789",
            versions={"python": "3.11.7"},
        ),
        command="text-embeddings-router --model-id x",
        info={"model_dtype": "float32"},
        sgemm=[100.0, 205.0, 210.0],
        rounds={name: [round_of(205, measurement())] for name in names},
        engine=[10000.0],
        start=[0.5, 0.6, 0.7],
        memory=Memory(resident=250, peak=260, anonymous=150, mapped=100),
        ceiling=measurement(),
        layer=[report.LayerCost("16 tokens", requests_per_second=4000, cpu_ms=0.25, tokenization_ms=0.04)],
    )


def test_table() -> None:
    text = report.render(some_report())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "columns are not aligned"
    assert "median 205, best 210 GFLOP/s" in text
    assert "the server reaches 80%" in text
    assert "median 0.60 s" in text


def test_report_is_saved_by_date_and_machine(tmp_path: Path) -> None:
    table = report.save(some_report(), tmp_path)
    assert table.name == "2026-01-31-some-cpu-2-0-ghz-avx512-vnni.md"
    saved = json.loads(table.with_suffix(".json").read_text())
    assert saved["summary"][0]["tokens_per_second"] == 8000
    assert saved["machine"]["cores"] == 2


def test_this_machine_can_be_described() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert here.versions["numpy"][0].isdigit()
    assert all(rate > 0 for rate in machine.sgemm(repetitions=1))
