"""What is compared with text-embeddings-inference, and with which goal."""

from __future__ import annotations

import pytest

from bench.load import texts
from bench.report import targets
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
