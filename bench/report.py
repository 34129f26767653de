"""Medians over the rounds, the comparison with TEI, and how both are printed and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.load import Measurement
from bench.machine import Machine
from bench.server import Memory

TEI_SGEMM = 205.0
"""GFLOP/s of `machine.sgemm` where the figures of TEI 1.9.3 (MiniLM, ONNX Runtime, two cores) were taken."""

TEI_START_S = 0.35
TEI_RESIDENT_MB = 324.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What TEI 1.9.3 reaches where sgemm gives TEI_SGEMM, and how many times as fast we mean to be.

    Either tokens_per_second or p50_ms.
    """

    goal: float
    tokens_per_second: float | None = None
    p50_ms: float | None = None


TEI = {
    "16 tokens, 1 connection": Reference(goal=1.25, p50_ms=4.9),
    "128 tokens, 32 connections": Reference(goal=1.6, tokens_per_second=7400),
    "ragged, 64 connections": Reference(goal=3.5, tokens_per_second=2500),
}
SERVER_OF_ENGINE_GOAL = 0.85
ENGINE_LOAD = "128 tokens, 32 connections"
"""The load whose texts the engine alone is measured on."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one load and the state of the machine just before it.

    server_cores: processor time of the server per second; padding: share of the computed tokens that nobody asked for;
    resident_mb: of the server, at the end. None: unknown.
    """

    measurement: Measurement
    sgemm: float
    server_cores: float | None
    padding: float | None
    resident_mb: float | None


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What a request costs a server whose engine computes nothing: processor time, and how long tokenization takes.

    requests_per_second: with that load, as fast as the server can.
    """

    load: str
    requests_per_second: float
    cpu_ms: float
    tokenization_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """A load: medians over its rounds (errors: the sum). times_tei: speed as a multiple of TEI's, scaled by sgemm."""

    load: str
    requests_per_second: float
    tokens_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    padding: float | None
    server_cores: float | None
    client_cores: float
    times_tei: float | None
    goal: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is printed and saved.

    info: the server's answer to /info; sgemm: GFLOP/s of every sample; engine: tokens/s alone, one per round;
    start: seconds to the first answer, one per start; ceiling: wrk against a server that answers at once;
    layer: the server over a fake engine.
    """

    machine: Machine
    command: str
    info: dict[str, object]
    sgemm: list[float]
    rounds: dict[str, list[Round]]
    engine: list[float]
    start: list[float]
    memory: Memory | None
    ceiling: Measurement
    layer: list[LayerCost]

    def rows(self) -> list[Row]:
        return [summary(name, rounds) for name, rounds in self.rounds.items()]


def summary(name: str, rounds: Sequence[Round]) -> Row:
    """The row of one load."""
    reference = TEI.get(name)

    def middle(value: Callable[[Round], float | None]) -> float | None:
        known = [v for v in map(value, rounds) if v is not None]
        return median(known) if known else None

    def of_wrk(value: Callable[[Measurement], float]) -> float:
        return median(value(r.measurement) for r in rounds)

    return Row(
        load=name,
        requests_per_second=of_wrk(lambda m: m.requests_per_second),
        tokens_per_second=of_wrk(lambda m: m.tokens_per_second),
        p50_ms=of_wrk(lambda m: m.p50_ms),
        p95_ms=of_wrk(lambda m: m.p95_ms),
        p99_ms=of_wrk(lambda m: m.p99_ms),
        errors=sum(r.measurement.errors for r in rounds),
        padding=middle(lambda r: r.padding),
        server_cores=middle(lambda r: r.server_cores),
        client_cores=of_wrk(lambda m: m.client_cores),
        # Each round is scaled by its own sgemm before the median is taken: the speed of a shared machine drifts.
        times_tei=median(times_tei(r, reference) for r in rounds) if reference else None,
        goal=reference.goal if reference else None,
    )


def times_tei(round_: Round, reference: Reference) -> float:
    """How many times as fast as TEI would be on a machine with this round's sgemm."""
    scale = round_.sgemm / TEI_SGEMM
    if reference.tokens_per_second is not None:
        return round_.measurement.tokens_per_second / (reference.tokens_per_second * scale)
    assert reference.p50_ms is not None
    return (reference.p50_ms / scale) / round_.measurement.p50_ms


def render(report: Report) -> str:
    """The report as Markdown."""
    machine = report.machine
    lines = [
        f"# {machine.date[:10]}: {machine.cpu}",
        "",
        f"- machine: {machine.cores} cores, {machine.memory_gib} GiB,"
        f" {' '.join(machine.instruction_sets) or 'no SIMD'}, {machine.system}",
        f"- sgemm (NumPy, 1536 x 1536 x 1536, two threads): median {median(report.sgemm):.0f}, best"
        f" {max(report.sgemm):.0f} GFLOP/s",
        f"- commit {machine.commit}; " + ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        f"- server: `{report.command}`; " + ", ".join(f"{key} {value}" for key, value in _told(report.info)),
        "",
        *_table([_cells(row) for row in report.rows()]),
        "",
        *_facts(report),
    ]
    return "\n".join(lines) + "\n"


HEADINGS = (
    "load",
    "requests/s",
    "tokens/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "errors",
    "padding",
    "cores: server",
    "wrk",
    "x TEI (scaled by sgemm)",
)


def _cells(row: Row) -> list[str]:
    return [
        row.load,
        f"{row.requests_per_second:.1f}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p95_ms:.2f}",
        f"{row.p99_ms:.2f}",
        str(row.errors),
        "" if row.padding is None else f"{row.padding:.0%}",
        "" if row.server_cores is None else f"{row.server_cores:.2f}",
        f"{row.client_cores:.2f}",
        "" if row.times_tei is None else f"{row.times_tei:.2f} (goal {row.goal})",
    ]


def _table(rows: list[list[str]]) -> list[str]:
    """A Markdown table, its columns aligned to be read in a terminal too."""
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return " | ".join(["| " + first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = " | ".join(["| " + "-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return [line(HEADINGS), rule, *map(line, rows)]


def _facts(report: Report) -> list[str]:
    facts = []
    if report.engine:
        alone = median(report.engine)
        pairs = zip(report.rounds[ENGINE_LOAD], report.engine, strict=True)
        ratio = median(round_.measurement.tokens_per_second / engine for round_, engine in pairs)
        facts.append(
            f"- engine alone, in process, 128 tokens: {alone:,.0f} tokens/s; the server reaches {ratio:.0%}"
            f" (goal {SERVER_OF_ENGINE_GOAL:.0%})"
        )
    if report.start:
        facts.append(
            f"- start to first answer of /embed: median {median(report.start):.2f} s, best {min(report.start):.2f} s of"
            f" {len(report.start)} (goal 0.9 s; TEI {TEI_START_S} s)"
        )
    if report.memory:
        memory = report.memory
        facts.append(
            f"- resident memory under load: {memory.resident:.0f} MB ({memory.anonymous:.0f} own,"
            f" {memory.mapped:.0f} in mapped files), peak {memory.peak:.0f} MB (TEI {TEI_RESIDENT_MB:.0f} MB)"
        )
    facts += [
        f"- without the engine, {cost.load}: {cost.cpu_ms:.2f} ms of processor time per request;"
        f" tokenization takes {cost.tokenization_ms:.2f} ms on the clock; {cost.requests_per_second:,.0f} requests/s"
        for cost in report.layer
    ]
    facts.append(
        f"- the load generator's ceiling: {report.ceiling.requests_per_second:,.0f} requests/s from a server that"
        f" answers at once, wrk taking {report.ceiling.client_cores:.2f} cores for it",
    )
    return facts


def _told(info: dict[str, object]) -> list[tuple[str, object]]:
    """What of /info says how the model is run."""
    wanted = ("model_dtype", "engine", "fidelity", "max_batch_tokens", "tokenization_workers")
    return [(key, info[key]) for key in wanted if info.get(key) is not None]


def save(report: Report, folder: Path) -> Path:
    """Writes DATE-CPU.json (everything) and DATE-CPU.md (the table); gives the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / f"{report.machine.date[:10]}-{report.machine.slug}.md"
    everything = {"summary": [asdict(row) for row in report.rows()], **asdict(report)}
    table.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
    table.write_text(render(report))
    return table
