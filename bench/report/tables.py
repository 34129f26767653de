"""A run as Markdown: what it ran on, the goals, every load of every contender."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.load.wrk import BenchError
from bench.report.machine import LEVELS
from bench.report.records import BASE, DTYPES, MINILM, Report, Round, Subject, save, summary
from bench.report.targets import EVERYWHERE, GOALS, TEI_TOKENS_PER_S, Goal, times_tei


def run(measure: Callable[[], Report], results: Path | None) -> None:
    """Measures, prints what was found, and saves it under `results`; ends the process with the message if it fails."""
    try:
        report = measure()
    except BenchError as error:
        sys.exit(f"error: {error}")
    text = render(report)
    print(text)
    if results:
        file = save(report, results)
        file.with_suffix(".md").write_text(text)
        print(f"saved as {file} and .md")


def render(report: Report) -> str:
    """The whole run."""
    title = "Ours and others" if report.kind == "peers" else "This server"
    lines = [f"# {report.machine.date[:10]}, {report.machine.cpu}: {title}", "", *facts(report)]
    if report.kind == "bench":
        lines += ["", "## Goals", "", *goals(report)]
    for model in (MINILM, BASE):
        if report.of_model(model):
            lines += ["", f"## {model}", "", *loads(report, model), "", *starts(report, model)]
            lines += in_process(report, model)
    if report.kind == "bench":
        lines += ["", "## Beside the engine", "", *beside(report)]
    return "\n".join(lines) + "\n"


def facts(report: Report) -> list[str]:
    """What was run, where, how."""
    machine = report.machine
    lines = [
        f"- machine: {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB,"
        f" {' '.join(machine.instruction_sets) or 'no SIMD'}, {machine.system}",
        f"- sgemm (NumPy, 1536 x 1536 x 1536, two threads): {spread(report.sgemm)} GFLOP/s",
        f"- {machine.date}; commit {machine.commit}; "
        + ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        f"- each load {report.seconds:g} s or longer, {_times(report.repetitions)}",
    ]
    for subject in report.subjects:
        told = [f"{key} {subject.info[key]}" for key in TOLD if subject.info.get(key) is not None]
        told += [f"{name} {version}" for name, version in subject.versions.items()]
        sgemm = [r.sgemm for rounds in subject.rounds.values() for r in rounds]
        told += [f"sgemm {spread(sgemm)}"] if sgemm else []
        lines.append(f"- {subject.model}, {subject.label}: `{subject.command}`; {', '.join(told) or subject.how}")
    lines += [f"- not measured: {what}: {why}" for what, why in report.left_out.items()]
    if report.quick:
        lines += ["", "**A quick run to try the tools: these figures say little.**"]
    return lines


NOTHING = "-"
TOLD = ("model_dtype", "engine", "fidelity", "max_batch_tokens", "tokenization_workers")
"""What of /info says how the model is run."""


def spread(samples: Sequence[float]) -> str:
    """The median of several samples, and how far apart they are."""
    middle = median(samples)
    least, most = min(samples), max(samples)
    apart = (most - least) / middle
    return f"median {middle:.0f}, {least:.0f} to {most:.0f} in {len(samples)} samples ({apart:.0%} apart)"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times, in turn; medians"


def goals(report: Report) -> list[str]:
    """Every goal and what each number type of the contender they are for reached."""
    chosen = report.chosen
    dtypes = [dtype for dtype in DTYPES if any(s.dtype == dtype for s in chosen)] or ["as it is"]
    levels = list(reversed(LEVELS.values()))
    rows = []
    for goal in GOALS:
        cells = [reached(goal, report, dtype) for dtype in dtypes]
        sign = "≥" if goal.at_least else "≤"
        bounds = [goal.bounds.get(level, goal.bounds.get(EVERYWHERE, {})) for level in levels]
        rows.append([goal.what, *cells, *(_bounds(of_level, sign) for of_level in bounds)])
    who = chosen[0].name
    return table([f"{who}, in", *dtypes, *(f"goal: {level}" for level in levels)], rows)


def _find(report: Report, model: str, dtype: str) -> Subject | None:
    return next((s for s in report.chosen if s.model == model and s.dtype == dtype), None)


def reached(goal: Goal, report: Report, dtype: str) -> str:
    """What a number type reached, and whether that is enough."""
    subject = _find(report, goal.model, dtype)
    value = goal.value(subject) if subject else None
    if value is None:
        return NOTHING
    text = f"{_number(value)} {goal.unit}".strip()
    bound = goal.bound(subject.dtype, report.machine.instruction_sets) if subject else None
    return text if bound is None else f"{text}, {'met' if goal.met(value, bound) else 'missed'}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _bounds(bounds: dict[str, float], sign: str) -> str:
    """One number, or one for each number type, those of `auto` (the first) together."""
    if len(set(bounds.values())) <= 1:
        return f"{sign} {next(iter(bounds.values())):g}" if bounds else ""
    return ", ".join(f"{sign} {bound:g}{' in int8' if dtype == 'int8' else ''}" for dtype, bound in _apart(bounds))


def _apart(bounds: dict[str, float]) -> Iterator[tuple[str, float]]:
    """The bounds without those that repeat the one before."""
    before = None
    for dtype, bound in bounds.items():
        if bound != before:
            yield dtype, bound
        before = bound


def in_process(report: Report, model: str) -> list[str]:
    """The native engine and OpenVINO without HTTP, and the share of the machine's peak; empty if not measured."""
    rows = [
        [
            found.load,
            f"{found.dtype}, {found.openvino_dtype}",
            str(found.threads),
            *(f"{median(times):.2f} ({min(times):.2f})" for times in (found.native_ms, found.openvino_ms)),
            f"{found.ratio:.2f}",
            f"{median(found.peak) / 1e9:,.0f}" if found.peak else NOTHING,
            NOTHING if found.share_of_peak is None else f"{found.share_of_peak:.0f} %",
        ]
        for subject in report.of_model(model)
        for found in subject.in_process
    ]
    headings = ["in process", "native, OpenVINO in", "threads", "native ms (least)", "OpenVINO ms (least)"]
    return ["", *table([*headings, "times as fast", "peak GOP/s", "of the peak"], rows)] if rows else []


def loads(report: Report, model: str) -> list[str]:
    """Each load, contender by contender. TEI's figures, scaled by sgemm, stand below where there are any."""
    subjects = report.of_model(model)
    names = list(dict.fromkeys(name for subject in subjects for name in subject.rounds))
    rows = []
    for name in names:
        rows += [_cells(name, s, s.rounds[name]) for s in subjects if name in s.rounds]
    headings = ["load", "contender", "requests/s", "tokens/s", "p50 ms", "p95 ms", "p99 ms", "errors"]
    headings += ["computed / asked", "cores: server", "wrk", "x TEI (scaled)"]
    return table(headings, rows)


def _cells(load: str, subject: Subject, rounds: Sequence[Round]) -> list[str]:
    row = summary(load, rounds)
    ratio = times_tei(subject.model, load)(subject) if (subject.model, load) in TEI_TOKENS_PER_S else None
    return [
        load,
        subject.label,
        f"{row.requests_per_second:.1f}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p95_ms:.2f}",
        f"{row.p99_ms:.2f}",
        str(row.errors),
        "" if row.waste is None else f"{row.waste:.2f}",
        "" if row.server_cores is None else f"{row.server_cores:.2f}",
        f"{row.client_cores:.2f}" if subject.how == "server" else "",
        "" if ratio is None else f"{ratio:.2f}",
    ]


def starts(report: Report, model: str) -> list[str]:
    """Start to first answer, and memory."""
    rows = []
    for subject in report.of_model(model):
        memory = subject.memory
        rows.append(
            [
                subject.label,
                f"{median(subject.start):.2f}" if subject.start else NOTHING,
                f"{min(subject.start):.2f}" if subject.start else NOTHING,
                *(
                    [f"{memory.peak:.0f}", f"{memory.anonymous:.0f}", f"{memory.mapped:.0f}"]
                    if memory
                    else [NOTHING] * 3
                ),
            ]
        )
    return table(
        ["", "start to first answer: median s", "best s", "peak memory MB", "own at the end MB", "in files MB"],
        rows,
    )


def beside(report: Report) -> list[str]:
    """What does not compute: the server without its engine, the load generator."""
    rows = []
    fastest: dict[str, float] = {}
    for subject in report.subjects:
        if subject.model == MINILM and subject.is_ours:
            for load, rounds in subject.rounds.items():
                fastest[load] = max(fastest.get(load, 0), summary(load, rounds).requests_per_second)
    for cost in report.layer:
        rate = fastest.get(cost.load)
        rows.append(
            [
                cost.load,
                f"{cost.cpu_ms:.2f}",
                f"{cost.tokenization_ms:.2f}",
                f"{cost.requests_per_second:,.0f}",
                NOTHING if rate is None else f"{rate:,.1f}",
                NOTHING if rate is None else f"{cost.cpu_ms * rate / 1000:.1%}",
            ]
        )
    headings = ["load", "processor ms per request", "tokenization ms", "most requests/s", "with the engine, requests/s"]
    lines = table([*headings, "share of a core at that rate"], rows)
    if report.ceiling:
        lines += [
            "",
            f"The load generator's ceiling: {report.ceiling.requests_per_second:,.0f} requests/s from a server that"
            f" answers at once, wrk taking {report.ceiling.client_cores:.2f} cores for it.",
        ]
    return lines


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its columns aligned to be read in a terminal too."""
    widths = [max(3, *map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return " | ".join(["| " + first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = " | ".join(["| " + "-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return [line(headings), rule, *map(line, rows)]
