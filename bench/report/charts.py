"""The four charts of text-embeddings-inference's landing page, from our own runs: SVG, for light and dark pages."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from bench.load.texts import LONG_1, LONG_32
from bench.report.records import BASE, Report, Row, Subject, summary

WIDTH = 720
LEFT = 290
BAR_WIDTH = 340
TOP = 84
STEP = 46
BAR = 22
LINE = 18
FOOT_CHARACTERS = 108

STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; stroke: #d1d9e0; }
.title { font-size: 17px; font-weight: 600; }
.value, .name { font-weight: 600; }
.small, .foot { font-size: 11.5px; fill: #59636e; }
.axis { stroke: #d1d9e0; }
.ours { fill: #0969da; }
.theirs { fill: #afb8c1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .page { fill: #0d1117; stroke: #3d444d; }
  .small, .foot { fill: #9198a1; }
  .axis { stroke: #3d444d; }
  .ours { fill: #4493f8; }
  .theirs { fill: #656c76; }
}"""


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of one load. best: the function that picks the best of several values."""

    name: str
    title: str
    unit: str
    load: str
    value: Callable[[Row], float]
    best: Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    detail: str
    value: float
    ours: bool


CHARTS = tuple(
    Chart(
        f"{what}-batch-{size}",
        f"BERT-base, 512 tokens, batch size {size}: {what}",
        unit,
        load,
        value,
        best,
    )
    for size, load in ((1, LONG_1), (32, LONG_32))
    for what, unit, value, best in (
        # Little's law: connections over throughput. The median of a run of two turns would count the first, in which
        # the queue is still short.
        (
            "latency",
            "mean in milliseconds, less is better",
            lambda row, size=size: 1e3 * size / row.requests_per_second,
            min,
        ),
        ("throughput", "texts per second, more is better", lambda row: row.requests_per_second, max),
    )
)


def draw_all(report: Report | None) -> dict[str, str]:
    """SVG by file name. A chart is left out if the run lacks its load; without a run there is none."""
    drawn: dict[str, str] = {}
    if report is None:
        return drawn
    for chart in CHARTS:
        bars = bars_of(chart, report)
        if bars:
            drawn[f"{chart.name}.svg"] = draw(chart, bars, notes(chart, report))
    return drawn


def bars_of(chart: Chart, report: Report) -> list[Bar]:
    """The best first."""
    bars = [
        Bar(subject.name, detail(subject, report), chart.value(summary(chart.load, rounds)), subject.is_ours)
        for subject in report.of_model(BASE)
        if (rounds := subject.rounds.get(chart.load))
    ]
    return sorted(bars, key=lambda bar: bar.value, reverse=chart.best is max)


def detail(subject: Subject, report: Report) -> str:
    """Number type, and what computes with its version: our engine, or the last package that is named."""
    if subject.is_ours:
        engine = str(subject.info.get("engine", ""))
        versions = {engine: report.machine.versions.get(engine, "")}
    else:
        versions = dict(list(subject.versions.items())[-1:])
    told = (f"{package} {version}".strip() for package, version in versions.items())
    return ", ".join(filter(None, [subject.dtype, *told]))


def notes(chart: Chart, report: Report) -> list[str]:
    """What stands below the bars: model and texts, machine, versions, date."""
    machine = report.machine
    batch = "One text at a time." if chart.load == LONG_1 else "Servers: 32 connections; libraries: 32 texts in a call."
    wide = [name for name in machine.instruction_sets if name.startswith(("amx", "avx512_"))] or ["no AVX-512"]
    others = {
        f"{name} {', '.join(f'{package} {version}' for package, version in subject.versions.items())}"
        for subject in report.of_model(BASE)
        if subject.versions and (name := subject.name + ":")
    }
    sentences = [
        f"BERT-base's shape (110 million parameters, random weights), texts of 512 tokens. {batch}",
        f"{machine.cpu}, {machine.cores} cores ({', '.join(wide)}), {machine.memory_gib:.0f} GiB;"
        f" Python {machine.versions.get('python', '')}; {machine.date[:10]}; this server at commit {machine.commit},"
        + (" make bench-peers --quick: to try the tools, says little." if report.quick else " make bench-peers."),
        *([f"{'; '.join(sorted(others))}."] if others else []),
    ]
    return [line for sentence in sentences for line in textwrap.wrap(sentence, FOOT_CHARACTERS, break_on_hyphens=False)]


def draw(chart: Chart, bars: list[Bar], foot: list[str]) -> str:
    """Horizontal bars from zero on, in the order given."""
    height = TOP + STEP * len(bars) + LINE * (len(foot) + 1) + 6
    longest = max(bar.value for bar in bars)
    described = f"{chart.title}: " + "; ".join(f"{bar.name} ({bar.detail}) {number(bar.value)}" for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' role="img" aria-label="{escape(described)}">',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(24, 34, "title", chart.title),
        _text(24, 56, "small", chart.unit),
    ]
    for number_, bar in enumerate(bars):
        y = TOP + STEP * number_
        width = max(1.0, BAR_WIDTH * bar.value / longest)
        lines += [
            _text(LEFT - 14, y + 10, "name", bar.name, "end"),
            _text(LEFT - 14, y + 25, "small", bar.detail, "end"),
            f'<rect class="{"ours" if bar.ours else "theirs"}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}"'
            f' rx="3"/>',
            _text(LEFT + width + 8, y + 16, "value", number(bar.value)),
        ]
    bottom = TOP + STEP * len(bars)
    lines.append(f'<line class="axis" x1="{LEFT}" y1="{TOP - 8}" x2="{LEFT}" y2="{bottom - STEP + BAR + 8}"/>')
    lines += [_text(24, bottom + LINE * (n + 1), "foot", line) for n, line in enumerate(foot)]
    return "\n".join([*lines, "</svg>"]) + "\n"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(x: float, y: float, kind: str, content: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
