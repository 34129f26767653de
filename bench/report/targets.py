"""How fast we mean to be, and how fast text-embeddings-inference 1.9.3 (TEI) is.

TEI's figures were taken on two cores with avx512_bf16 and avx512_vnni, where `machine.sgemm` gives SGEMM; on another
machine they are scaled by the median of the sgemm measured before each load: one sample may be half of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import texts
from bench.report.machine import level_of
from bench.report.records import BASE, DTYPES, MINILM, InProcess, Round, Subject

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

EVERYWHERE = "every CPU"
"""The level of goals that hold on every CPU."""
Bounds = dict[str, dict[str, float]]
"""By level (`machine.level_of`, or EVERYWHERE) and number type."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table: a value of `model` and its bounds.

    value: None where the run or TEI's figures lack something; at_least: else the bound is the most it may be.
    """

    what: str
    model: str
    unit: str
    value: Callable[[Subject], float | None]
    at_least: bool
    bounds: Bounds

    def bound(self, dtype: str, instruction_sets: Sequence[str]) -> float | None:
        """What a number type has to reach on a CPU with these instruction sets; None if nothing is set."""
        bounds = self.bounds.get(level_of(instruction_sets) or EVERYWHERE, self.bounds.get(EVERYWHERE, {}))
        return bounds.get(dtype)

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


def over_openvino(load: str, threads: int | None) -> Callable[[Subject], float | None]:
    """How many times as fast as OpenVINO the native engine is in process, with one thread or (None) with several."""

    def value(subject: Subject) -> float | None:
        found = _in_process(subject, load, threads)
        return found.ratio if found else None

    return value


def share_of_peak(load: str, threads: int | None) -> Callable[[Subject], float | None]:
    """What the native engine reaches of the operations/s on registers alone, in percent."""

    def value(subject: Subject) -> float | None:
        found = _in_process(subject, load, threads)
        return found.share_of_peak if found else None

    return value


def _in_process(subject: Subject, load: str, threads: int | None) -> InProcess | None:
    for found in subject.in_process:
        if found.load == load and (found.threads == threads or (threads is None and found.threads > 1)):
            return found
    return None


def _levels(auto: float, int8: float, bfloat16: float, bfloat16_int8: float, amx: float) -> Bounds:
    """auto, int8: on AVX2, where `auto` is int16 or float32; bfloat16, bfloat16_int8: on avx512_bf16; amx: bfloat16."""
    return {
        "AVX2": {"float32": auto, "int16": auto, "int8": int8},
        "avx512_bf16": {"bfloat16": bfloat16, "int8": bfloat16_int8},
        "AMX": {"bfloat16": amx},
    }


def _everywhere(bound: float, **levels: float) -> Bounds:
    """The same for all number types; levels: another bound where there is one."""
    return {level: dict.fromkeys(DTYPES, of_level) for level, of_level in ({EVERYWHERE: bound} | levels).items()}


def _faster(model: str, load: str, bounds: Bounds) -> Goal:
    return Goal(f"{model}, {load}", model, "x TEI", times_tei(model, load), True, bounds)


def _beside(model: str, load: str, alone: Bounds, several_only: bool = False) -> list[Goal]:
    """The native engine over OpenVINO in process."""
    what = f"{model} in process, {load}"
    by_threads = {"all cores": None} if several_only else {"one thread": 1, "all cores": None}
    return [
        Goal(f"{what}, {cores}", model, "x OpenVINO", over_openvino(load, threads), True, alone)
        for cores, threads in by_threads.items()
    ]


OVER_OPENVINO = _levels(1.5, 2.2, 1.1, 1.5, 1.8)
OVER_OPENVINO_UNEVEN = _levels(1.9, 2.8, 1.5, 1.5, 1.8)
"""Of short texts, and of texts of mixed lengths, which OpenVINO pads."""
SHARE = _levels(85, 60, 85, 85, 60)
MANY = "32 x 128 tokens"
LONG = _levels(1.5, 2.2, 2.2, 3.8, 5)

GOALS = (
    Goal(
        f"{MINILM}, {texts.SHORT_1}: p50",
        MINILM,
        "x TEI's",
        latency_of_tei(texts.SHORT_1, TEI_P50_MS[MINILM, texts.SHORT_1], lambda r: r.measurement.p50_ms),
        False,
        _levels(0.55, 0.45, 0.4, 0.3, 0.3),
    ),
    _faster(MINILM, texts.EQUAL, _levels(1.6, 2.3, 2.4, 4, 6)),
    _faster(MINILM, texts.RAGGED_64, _levels(5.5, 8, 6.5, 11, 20)),
    Goal(
        f"{MINILM}, {texts.RAGGED_64}: p99",
        MINILM,
        "x TEI's",
        latency_of_tei(texts.RAGGED_64, TEI_P99_MS[MINILM, texts.RAGGED_64], lambda r: r.measurement.p99_ms),
        False,
        {level: {"bfloat16": 0.25, "int8": 0.25} for level in ("avx512_bf16", "AMX")},
    ),
    Goal(
        f"{MINILM}, ragged: tokens/s at 8 connections over those at 64",
        MINILM,
        "",
        of_other_load(texts.RAGGED_8, texts.RAGGED_64),
        True,
        _everywhere(0.95, AMX=0.9),
    ),
    _faster(BASE, texts.LONG_1, LONG),
    _faster(BASE, texts.LONG_32, LONG),
    _faster(BASE, texts.RAGGED_32, _levels(7, 11, 9, 16, 25)),
    *_beside(MINILM, "16 tokens", OVER_OPENVINO_UNEVEN),
    *_beside(MINILM, "128 tokens", OVER_OPENVINO),
    *_beside(MINILM, MANY, OVER_OPENVINO),
    *_beside(MINILM, "ragged, 64", OVER_OPENVINO_UNEVEN),
    *_beside(BASE, "512 tokens", OVER_OPENVINO, several_only=True),
    *_beside(BASE, "ragged, 32", OVER_OPENVINO_UNEVEN, several_only=True),
    Goal(f"{MINILM} in process, {MANY}, one thread: of the peak", MINILM, "%", share_of_peak(MANY, 1), True, SHARE),
    Goal(f"{MINILM} in process, {MANY}, all cores: of the peak", MINILM, "%", share_of_peak(MANY, None), True, SHARE),
    Goal(f"{MINILM}, {texts.EQUAL}: server over engine alone", MINILM, "", of_engine, True, _everywhere(0.9)),
    Goal(f"{MINILM}, {texts.RAGGED_64}: padding", MINILM, "x", waste(texts.RAGGED_64), False, _everywhere(1.12)),
    Goal(f"{MINILM}, {texts.RAGGED_8}: padding", MINILM, "x", waste(texts.RAGGED_8), False, _everywhere(1.3)),
    Goal(f"{MINILM}: start to first answer", MINILM, "s", start, False, _everywhere(0.45)),
    Goal(f"{BASE}: start to first answer", BASE, "s", start, False, _everywhere(0.5)),
    Goal(f"{MINILM}: peak memory", MINILM, "MB", peak, False, _everywhere(200)),
    Goal(f"{BASE}: peak memory", BASE, "MB", peak, False, _everywhere(560)),
)
