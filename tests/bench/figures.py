"""Figures as a run of the bench finds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.load import texts
from bench.load.server import Memory
from bench.load.wrk import Measurement
from bench.report import machine, records


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


def round_of(sgemm: float, measured: Measurement, waste: float | None = 1.125) -> records.Round:
    return records.Round(measured, sgemm, server_cores=1.9, waste=waste)


def subject_of(rounds: dict[str, list[records.Round]], model: str = records.MINILM, **further: Any) -> records.Subject:
    return records.Subject(
        further.pop("name", records.OURS),
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


def some_report(kind: str = "bench", date: str = "2026-01-31T12:00:00+00:00") -> records.Report:
    minilm = {name: [round_of(205, measurement())] for name in (texts.EQUAL, texts.RAGGED_64, texts.RAGGED_8)}
    base = {name: [round_of(205, measurement(512 * 2))] for name in (texts.LONG_1, texts.LONG_32)}
    half = replace(measurement(), requests=50)
    slow = {name: [round_of(205, half, None)] for name in (texts.LONG_1, texts.LONG_32)}
    memory = Memory(resident=250, peak=260, anonymous=150, mapped=100)
    beside = records.InProcess(
        "32 x 128 tokens", 1, "bfloat16", "bfloat16", 4e9, [20.0, 10.0, 40.0], [40.0, 20.0, 80.0], [250e9] * 3
    )
    subjects = [
        subject_of(
            minilm,
            engine=[10000.0],
            start=[0.5, 0.6, 0.7],
            memory=memory,
            info={"model_dtype": "bfloat16"},
            in_process=[beside],
        ),
        subject_of(base, records.BASE),
    ]
    if kind == "peers":
        subjects.append(subject_of(slow, records.BASE, name="a <peer>", dtype="float32", versions={"torch": "9.9"}))
    return records.Report(
        kind=kind,
        machine=replace(some_machine(), date=date),
        quick=False,
        seconds=4,
        repetitions=3,
        sgemm=[100.0, 205.0, 210.0],
        subjects=subjects,
        left_out={"int8": "not there"},
        ceiling=measurement(),
        layer=[records.LayerCost(texts.EQUAL, requests_per_second=4000, cpu_ms=0.25, tokenization_ms=0.04)],
    )
