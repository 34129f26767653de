"""What is compared with text-embeddings-inference, and with which goal."""

from __future__ import annotations

import pytest

from bench.load import texts
from bench.report import targets
from bench.report.records import InProcess
from tests.bench.figures import measurement, round_of, subject_of


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
    assert ragged.bound("bfloat16", ("avx512_bf16", "avx2")) == 6.5
    assert ragged.bound("int8", ("avx512_bf16", "avx2")) == 11
    assert ragged.bound("bfloat16", ("amx_int8", "amx_bf16", "avx512_bf16")) == 20
    assert ragged.bound("int8", ("amx_int8", "amx_bf16", "avx512_bf16")) is None
    assert ragged.bound("float32", ("avx512_bf16",)) is None
    assert [ragged.bound(dtype, ("avx2",)) for dtype in ("float32", "int16", "int8", "bfloat16")] == [5.5, 5.5, 8, None]
    assert ragged.bound("float32", ("sve",)) is None
    assert goal("MiniLM-L6: peak memory").bound("float32", ("sve",)) == 200
    assert goal("MiniLM-L6: start to first answer").met(0.45, 0.45)
    assert not ragged.met(6.4, 6.5)


def test_some_goals_hold_everywhere_but_on_one_kind_of_cpu() -> None:
    fewer = goal("MiniLM-L6, ragged: tokens/s at 8 connections over those at 64")
    assert fewer.bound("bfloat16", ("amx_bf16",)) == 0.9
    assert [fewer.bound("bfloat16", (flag,)) for flag in ("avx512_bf16", "avx2", "sve")] == [0.95] * 3


def test_native_is_compared_with_openvino_in_the_same_round() -> None:
    # 8, 2 and 1 times as fast.
    times = {"native_ms": [1.0, 4.0, 9.0], "openvino_ms": [8.0, 8.0, 9.0]}
    found = [InProcess("16 tokens", threads, "bfloat16", "bfloat16", None, **times) for threads in (1, 4)]
    one_thread = subject_of({}, in_process=found[:1])
    assert goal("MiniLM-L6 in process, 16 tokens, one thread").value(one_thread) == 2
    assert goal("MiniLM-L6 in process, 16 tokens, all cores").value(one_thread) is None
    assert goal("MiniLM-L6 in process, 16 tokens, all cores").value(subject_of({}, in_process=found)) == 2
    assert goal("MiniLM-L6 in process, 128 tokens, one thread").value(one_thread) is None


def test_share_of_peak() -> None:
    # 4e9 operations in 20 ms are 200e9 a second.
    found = InProcess("32 x 128 tokens", 1, "int16", "float32", 4e9, [20.0, 10.0, 40.0], [1.0] * 3, [250e9, 1e9, 300e9])
    share = goal("MiniLM-L6 in process, 32 x 128 tokens, one thread: of the peak")
    assert share.value(subject_of({}, in_process=[found])) == pytest.approx(80)
    unknown = InProcess("32 x 128 tokens", 1, "bfloat16", "bfloat16", 4e9, [20.0], [1.0])
    assert share.value(subject_of({}, in_process=[unknown])) is None
    assert share.bound("int16", ("avx2",)) == 85


def test_a_value_that_was_not_measured_is_none() -> None:
    nothing = subject_of({})
    assert [g.value(nothing) for g in targets.GOALS] == [None] * len(targets.GOALS)
