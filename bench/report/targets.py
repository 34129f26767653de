"""How fast we mean to be, and how fast text-embeddings-inference 1.9.3 (TEI) is.

TEI's figures were taken on two cores with avx512_bf16 and avx512_vnni, where `machine.sgemm` gives SGEMM; on another
machine they are scaled by the median of the sgemm measured before each load: one sample may be half of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import texts
from bench.report.records import BASE, DTYPES, MINILM, Round, Subject

SGEMM = 205.0
"""GFLOP/s where TEI's figures were taken."""

TEI_TOKENS_PER_S = {
    (MINILM, texts.EQUAL): 7400.0,
    (MINILM, texts.RAGGED_64): 2500.0,
    (BASE, texts.LONG_1): 973.0,
    # Texts of equal length that fill the cores one by one are no faster together: the figure of one connection.
    (BASE, texts.LONG_32): 973.0,
    (BASE, texts.RAGGED_32): 213.0,
}
TEI_P50_MS = {(MINILM, texts.SHORT_1): 4.9}
TEI_P99_MS = {(MINILM, texts.RAGGED_64): 1650.0}

LEVELS = ("avx512_bf16", "amx_bf16")
"""The kinds of CPU, by the instruction set that makes the difference, that goals relative to TEI are set for."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table: a value of `model` and its bounds.

    value: None where the run or TEI's figures lack something; at_least: else the bound is the most it may be;
    bounds: by number type, on CPUs with avx512_bf16 and with AMX; anywhere: the bounds hold on every CPU.
    """

    what: str
    model: str
    unit: str
    value: Callable[[Subject], float | None]
    at_least: bool
    avx512: dict[str, float]
    amx: dict[str, float]
    anywhere: bool = False

    def bound(self, dtype: str, instruction_sets: Sequence[str]) -> float | None:
        """What a number type has to reach on a CPU with these instruction sets; None if nothing is set."""
        if "amx_bf16" in instruction_sets:
            return self.amx.get(dtype)
        if self.anywhere or "avx512_bf16" in instruction_sets:
            return self.avx512.get(dtype)
        return None

    def met(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


def scale(subject: Subject) -> float:
    """How fast the machine was during a subject's rounds, as a multiple of the one TEI's figures come from."""
    return median(r.sgemm for rounds in subject.rounds.values() for r in rounds) / SGEMM


def times_tei(model: str, load: str) -> Callable[[Subject], float | None]:
    """Tokens/s as a multiple of TEI's."""
    tei = TEI_TOKENS_PER_S.get((model, load))

    def value(subject: Subject) -> float | None:
        rounds = subject.rounds.get(load)
        if not rounds or tei is None:
            return None
        return median(r.measurement.tokens_per_second for r in rounds) / (tei * scale(subject))

    return value


def latency_of_tei(load: str, tei_ms: float, percentile: Callable[[Round], float]) -> Callable[[Subject], float | None]:
    """A percentile of the latency as a share of TEI's."""

    def value(subject: Subject) -> float | None:
        rounds = subject.rounds.get(load)
        return median(percentile(r) for r in rounds) * scale(subject) / tei_ms if rounds else None

    return value


def of_other_load(load: str, other: str) -> Callable[[Subject], float | None]:
    """Tokens/s of one load as a share of another's."""

    def value(subject: Subject) -> float | None:
        pairs = zip(subject.rounds.get(load, []), subject.rounds.get(other, []), strict=False)
        ratios = [a.measurement.tokens_per_second / b.measurement.tokens_per_second for a, b in pairs]
        return median(ratios) if ratios else None

    return value


def of_engine(subject: Subject) -> float | None:
    """The server's tokens/s as a share of its engine's, alone in process just after it."""
    pairs = zip(subject.rounds.get(texts.EQUAL, []), subject.engine, strict=False)
    ratios = [round_.measurement.tokens_per_second / engine for round_, engine in pairs]
    return median(ratios) if ratios else None


def waste(load: str) -> Callable[[Subject], float | None]:
    def value(subject: Subject) -> float | None:
        known = [r.waste for r in subject.rounds.get(load, []) if r.waste is not None]
        return median(known) if known else None

    return value


def start(subject: Subject) -> float | None:
    return median(subject.start) if subject.start else None


def peak(subject: Subject) -> float | None:
    return subject.memory.peak if subject.memory else None


def _faster(model: str, load: str, avx512: dict[str, float], amx: float) -> Goal:
    bounds = dict.fromkeys(avx512, amx)
    return Goal(f"{model}, {load}", model, "x TEI", times_tei(model, load), True, avx512, bounds)


def _all(bound: float) -> dict[str, float]:
    return dict.fromkeys(DTYPES, bound)


def _anywhere(
    what: str, model: str, unit: str, value: Callable[[Subject], float | None], at_least: bool, bounds: dict[str, float]
) -> Goal:
    return Goal(what, model, unit, value, at_least, bounds, bounds, anywhere=True)


GOALS = (
    _faster(MINILM, texts.EQUAL, {"bfloat16": 1.8, "int8": 2.2}, 4),
    _faster(MINILM, texts.RAGGED_64, {"bfloat16": 4.2, "int8": 5}, 9),
    Goal(
        f"{MINILM}, {texts.RAGGED_64}: p99",
        MINILM,
        "x TEI's",
        latency_of_tei(texts.RAGGED_64, TEI_P99_MS[MINILM, texts.RAGGED_64], lambda r: r.measurement.p99_ms),
        False,
        {"bfloat16": 0.25, "int8": 0.25},
        {"bfloat16": 0.25, "int8": 0.25},
    ),
    _anywhere(
        f"{MINILM}, ragged: tokens/s at 8 connections over those at 64",
        MINILM,
        "",
        of_other_load(texts.RAGGED_8, texts.RAGGED_64),
        True,
        _all(0.85),
    ),
    Goal(
        f"{MINILM}, {texts.SHORT_1}: p50",
        MINILM,
        "x TEI's",
        latency_of_tei(texts.SHORT_1, TEI_P50_MS[MINILM, texts.SHORT_1], lambda r: r.measurement.p50_ms),
        False,
        {"bfloat16": 0.65, "int8": 0.65},
        {"bfloat16": 0.45, "int8": 0.45},
    ),
    _faster(MINILM, texts.SHORT_32, {"bfloat16": 1.7, "int8": 2.1}, 4),
    _faster(BASE, texts.LONG_1, {"bfloat16": 1.8}, 4),
    _faster(BASE, texts.LONG_32, {"bfloat16": 1.8}, 4),
    _faster(BASE, texts.RAGGED_32, {"bfloat16": 6}, 12),
    _anywhere(f"{MINILM}, {texts.EQUAL}: server over engine alone", MINILM, "", of_engine, True, _all(0.9)),
    _anywhere(f"{MINILM}, {texts.RAGGED_64}: padding", MINILM, "x", waste(texts.RAGGED_64), False, _all(1.12)),
    _anywhere(f"{MINILM}, {texts.RAGGED_8}: padding", MINILM, "x", waste(texts.RAGGED_8), False, _all(1.3)),
    _anywhere(f"{MINILM}: start to first answer", MINILM, "s", start, False, _all(0.7)),
    _anywhere(f"{BASE}: start to first answer", BASE, "s", start, False, _all(0.9)),
    _anywhere(f"{MINILM}: peak memory", MINILM, "MB", peak, False, {"float32": 300}),
    _anywhere(f"{BASE}: peak memory", BASE, "MB", peak, False, {"float32": 900}),
)
