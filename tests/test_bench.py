"""The bench's texts have the lengths they claim, and its figures mean what the table says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tokenizers import Tokenizer

from bench import base_shape, charts, machine, measure, page, report, tables, targets, texts
from bench.__main__ import parse
from bench.load import Measurement
from bench.peers.process import for_infinity, measurement_of, percentile
from bench.server import Memory
from text_embeddings_inference import load

ROOT = Path(__file__).parents[1]
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


def round_of(sgemm: float, measured: Measurement, waste: float | None = 1.125) -> report.Round:
    return report.Round(measured, sgemm, server_cores=1.9, waste=waste)


def subject_of(rounds: dict[str, list[report.Round]], model: str = report.MINILM, **further: Any) -> report.Subject:
    return report.Subject(
        further.pop("name", report.OURS),
        model,
        further.pop("dtype", "bfloat16"),
        "server",
        "x",
        rounds=rounds,
        **further,
    )


def some_machine(*instruction_sets: str) -> machine.Machine:
    return machine.Machine(
        date="2026-01-31T12:00:00+00:00",
        cpu="Some CPU @ 2.0 GHz",
        cores=2,
        memory_gib=8.0,
        instruction_sets=instruction_sets or ("avx512_bf16", "avx2"),
        system="Linux",
        commit="0123456789",
        versions={"python": "3.11.7", "openvino": "1.2.3"},
    )


def some_report(kind: str = "bench", date: str = "2026-01-31T12:00:00+00:00") -> report.Report:
    minilm = {name: [round_of(205, measurement())] for name in (texts.EQUAL, texts.RAGGED_64, texts.RAGGED_8)}
    base = {name: [round_of(205, measurement(512 * 2))] for name in (texts.LONG_1, texts.LONG_32)}
    half = replace(measurement(), requests=50)
    slow = {name: [round_of(205, half, None)] for name in (texts.LONG_1, texts.LONG_32)}
    memory = Memory(resident=250, peak=260, anonymous=150, mapped=100)
    subjects = [
        subject_of(minilm, engine=[10000.0], start=[0.5, 0.6, 0.7], memory=memory, info={"model_dtype": "bfloat16"}),
        subject_of(base, report.BASE),
    ]
    if kind == "peers":
        subjects.append(subject_of(slow, report.BASE, name="a <peer>", dtype="float32", versions={"torch": "9.9"}))
    return report.Report(
        kind=kind,
        machine=replace(some_machine(), date=date),
        quick=False,
        seconds=4,
        repetitions=3,
        sgemm=[100.0, 205.0, 210.0],
        subjects=subjects,
        left_out={"int8": "not there"},
        ceiling=measurement(),
        layer=[report.LayerCost(texts.EQUAL, requests_per_second=4000, cpu_ms=0.25, tokenization_ms=0.04)],
    )


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


def goal(what: str) -> targets.Goal:
    return next(g for g in targets.GOALS if g.what == what)


def test_throughput_is_compared_with_tei_scaled_by_sgemm() -> None:
    # On half the machine, TEI would reach half of its 7,400 tokens/s.
    half = round_of(targets.SGEMM / 2, measurement(tokens_per_second=7400))
    value = goal("MiniLM-L6, 128 tokens, 32 connections").value(subject_of({texts.EQUAL: [half]}))
    assert value == pytest.approx(2)


def test_one_sample_of_sgemm_says_nothing() -> None:
    rounds = {texts.EQUAL: [round_of(targets.SGEMM, measurement(tokens_per_second=7400))]}
    rounds[texts.SHORT_1] = [round_of(g, measurement()) for g in (targets.SGEMM / 3, targets.SGEMM)]
    assert goal("MiniLM-L6, 128 tokens, 32 connections").value(subject_of(rounds)) == pytest.approx(1)


def test_latency_is_compared_with_tei_scaled_by_sgemm() -> None:
    # On half the machine, TEI would take twice its 4.9 ms.
    half = round_of(targets.SGEMM / 2, measurement(p50_ms=4.9))
    value = goal("MiniLM-L6, 16 tokens, 1 connection: p50").value(subject_of({texts.SHORT_1: [half]}))
    assert value == pytest.approx(0.5)


def test_server_is_compared_with_its_engine_in_the_same_round() -> None:
    rounds = [round_of(205, measurement(rate)) for rate in (900, 400, 100)]
    subject = subject_of({texts.EQUAL: rounds}, engine=[1000.0, 500.0, 1000.0])
    assert goal("MiniLM-L6, 128 tokens, 32 connections: server over engine alone").value(subject) == pytest.approx(0.8)


def test_goals_depend_on_number_type_and_cpu() -> None:
    ragged = goal("MiniLM-L6, ragged, 64 connections")
    assert ragged.bound("bfloat16", ("avx512_bf16", "avx2")) == 4.2
    assert ragged.bound("int8", ("avx512_bf16", "avx2")) == 5
    assert ragged.bound("int8", ("amx_int8", "amx_bf16", "avx512_bf16")) == 9
    assert ragged.bound("float32", ("avx512_bf16",)) is None
    assert ragged.bound("bfloat16", ("avx2",)) is None
    assert goal("MiniLM-L6: peak memory").bound("float32", ("avx2",)) == 300
    assert goal("MiniLM-L6: start to first answer").met(0.7, 0.7)
    assert not ragged.met(4.1, 4.2)


def test_a_value_that_was_not_measured_is_none() -> None:
    nothing = subject_of({})
    assert [g.value(nothing) for g in targets.GOALS] == [None] * len(targets.GOALS)


def test_rounds_become_medians_and_errors_a_sum() -> None:
    rounds = [round_of(205, measurement(rate, errors=1)) for rate in (1000, 9000, 2000)]
    row = report.summary(texts.RAGGED_8, rounds)
    assert row.tokens_per_second == 2000
    assert row.errors == 3
    assert row.waste == 1.125


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


def test_a_library_call_counts_for_each_of_its_texts() -> None:
    measured = measurement_of([0.5, 1.0, 0.5], texts=96, tokens=4800)
    assert measured.requests_per_second == 48
    assert measured.tokens_per_second == 2400
    assert (measured.p50_ms, measured.p99_ms) == (500, 1000)
    assert [percentile(range(1, 101), p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]


def test_peers_get_the_same_texts() -> None:
    load = texts.Load("x", 2, [texts.bodies_of(["a"]), texts.bodies_of(["a", "b"])], [3, 6])
    assert [json.loads(body)["input"] for body in for_infinity(load).bodies] == ["a", ["a", "b"]]


def test_tables() -> None:
    text = tables.render(some_report())
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(row) for row in block.splitlines()}) == 1, "columns are not aligned"
    assert "median 205, best 210 GFLOP/s" in text
    assert re.search(r"server over engine alone \| +0.80, missed", text)
    assert re.search(r"MiniLM-L6: start to first answer +\| +0.60 s, met", text)
    assert "not measured: int8: not there" in text


def test_report_is_saved_by_date_and_machine_and_read_again(tmp_path: Path) -> None:
    file = report.save(some_report(), tmp_path)
    assert file.name == "2026-01-31-some-cpu-2-0-ghz-avx512-bf16-bench.json"
    assert report.read(file) == some_report()
    file.write_text(json.dumps({"summary": []}))
    assert report.read(file) is None


def test_page_shows_the_newest_run_of_each_kind(tmp_path: Path) -> None:
    report.save(some_report(date="2026-01-30T12:00:00+00:00"), tmp_path)
    for kind in ("bench", "peers"):
        report.save(some_report(kind), tmp_path)
    runs = page.read_runs(tmp_path)
    assert [(run.kind, run.machine.date[:10]) for run in runs] == [("bench", "2026-01-31"), ("peers", "2026-01-31")]
    text = page.write_page(runs)
    assert "### This server, 2026-01-31" in text
    assert "### This server and others, 2026-01-31" in text
    assert text.count("](charts/") == 4


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


def test_docs_are_current() -> None:
    for file, content in page.files(ROOT, page.RESULTS).items():
        assert file.read_text() == content, f"{file.name}: run `make bench-charts`"


def test_random_checkpoint_can_be_served(tmp_path: Path) -> None:
    small = base_shape.CONFIG | {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "vocab_size": Tokenizer.from_file(str(MODEL / "tokenizer.json")).get_vocab_size(),
    }
    for name in ("a", "b"):
        base_shape.write_checkpoint(tmp_path / name, MODEL, small)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    with load(tmp_path / "a") as model:
        vectors = model.embed(["a", "b c"])
    assert vectors.shape == (2, 24)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])


def test_the_shape_is_that_of_bert_base() -> None:
    tensors = dict(base_shape.shapes(768, 3072, 12, 30522, 512))
    assert len(tensors) == 199
    assert sum(int(np.prod(shape)) for shape in tensors.values()) == 109_482_240


def test_arguments() -> None:
    plan = parse(["--model", "m", "--base", "b", "--dtypes", "float32,int8"])
    assert plan.models == {report.MINILM: Path("m"), report.BASE: Path("b")}
    assert plan.dtypes == ("float32", "int8")
    assert parse(["--model", "m", "--quick"]).results is None
    with pytest.raises(SystemExit):
        parse(["--model", "m", "--dtypes", "float31"])


def test_this_machine_can_be_described() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert here.versions["numpy"][0].isdigit()
    assert all(rate > 0 for rate in machine.sgemm(repetitions=1))
