"""Writes docs/performance.md, docs/charts/*.svg and the speed section of README.md from bench/results.

    python -m scripts.performance_page     (make bench-charts)

A test holds that they are current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.report import charts, tables
from bench.report.records import DTYPES, Report, read
from bench.report.targets import GOALS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
START, END = "<!-- speed: written by scripts/performance_page.py -->", "<!-- end of speed -->"

METHOD = """\
# Performance

<!-- Written by scripts/performance_page.py from bench/results (make bench, make bench-peers, make bench-charts). -->

How fast this server is, beside text-embeddings-inference 1.9.3 (TEI) and beside what else installs from PyPI.
Everything here was measured by `make bench` and `make bench-peers`, which draw the same tables for your machine.

## Method

- **Models.** all-MiniLM-L6-v2, and a checkpoint of BERT-base's shape (12 layers, width 768, 110 million parameters)
  with random weights from a fixed seed: neither speed nor memory depends on their values.
- **Texts.** Random words of the model's vocabulary, the same on every run, with exactly as many tokens as a load
  says, `[CLS]` and `[SEP]` included. *Ragged*: log-normal lengths, mean 60, sigma 0.8, at most 256, as in a
  collection of passages.
- **Load.** The server is a process of its own; [wrk](https://github.com/wg/wrk) sends to it over loopback with one
  thread, on the same cores. Each connection sends its next request when it has the last answer. What is unanswered
  when the time is over doesn't count.
- **Side by side.** The server runs once per engine and number type, all at the same time, and each load goes to one
  after the other before the next load comes, round by round; the tables show medians over the rounds. Shared machines
  drift, and two virtual CPUs at times deliver the speed of one: this way it meets all alike. *This server* is what
  `--engine auto` chooses, *this server on OpenVINO* is `--engine openvino`, in the number type nearest to it. Number
  types that the CPU does not compute in natively are left out.
- **In process.** The native engine and OpenVINO on the same token ids, in batches that the server's scheduler makes
  for each, in turn: one thread by the processor's time, all cores by the clock. *Times as fast* is the median of the
  rounds' ratios.
- **Share of the peak.** Operations per second of the model's products (for each token twice the weights they multiply
  with, and 4 x tokens x width x layers for attention) over those of a loop of the number type's instruction on
  registers alone, on as many threads, run in each round. CPUs without AVX2 have no such loop yet.
  Products that the engine keeps in a wider type, as int8 and int16 do with those that would lose much, count alike.
- **TEI.** Its figures come from another machine (two cores with avx512_bf16, ONNX Runtime) and are scaled by the two
  machines' sgemm, 205 GFLOP/s there; here the median of what is measured before each load of the same contender, while
  nothing else runs: a single sample may be half of the next one, so their spread is told. For 32 connections at 512
  tokens the figure of one connection is taken; for 32 connections at 16 tokens there is none.
- **Padding.** Tokens computed for each token asked for, from `tei_batch_computed_tokens_total` and
  `tei_batch_tokens_total`.
- **Server over engine alone.** The same texts, 256 in a call, through the library in process, tokenization included,
  right after the server.
- **Start.** From starting the process to the end of the first answer, to a text of 7 tokens, files in memory already.
  **Peak memory.** VmHWM after all loads.
- **Beside the engine.** The real server over an engine that answers at once: what HTTP, tokenization, queue, metrics
  and logs cost.
- **Others.** sentence-transformers and ONNX Runtime have no server: they are called in process, N texts in a call
  where a server gets N connections, in batches of 32 sorted by length, so they are spared HTTP and the waiting for
  each other. A text's latency is its call's. infinity runs as a server under the same load. All as their
  documentation shows it, with both cores. Their models are exported for OpenVINO and ONNX before the start is timed.
- **Charts.** Latency is the mean, connections over throughput (Little's law); for a library, the time of a call.
"""


def write_page(runs: list[Report]) -> str:
    """The whole of docs/performance.md: of every machine the newest run of each kind."""
    parts = [METHOD]
    if not runs:
        parts.append("No run in today's format has been saved yet.\n")
    for slug in dict.fromkeys(run.machine.slug for run in runs):
        of_machine = [run for run in runs if run.machine.slug == slug]
        parts.append(f"## {_title(of_machine[0])}\n")
        for run in of_machine:
            parts.append(section(run))
    if drawn := charts.draw_all(_peers(runs)):
        parts.append("## Charts\n")
        parts.append("\n\n".join(_picture(name, "charts") for name in drawn) + "\n")
    return "\n".join(parts)


def _title(run: Report) -> str:
    sets = [name for name in run.machine.instruction_sets if name.startswith(("amx", "avx512_"))]
    return f"{run.machine.cpu}, {run.machine.cores} cores, {', '.join(sets) or 'without AVX-512'}"


def _picture(file: str, folder: str) -> str:
    title = next(chart.title for chart in charts.CHARTS if f"{chart.name}.svg" == file)
    return f"![{title}]({folder}/{file})"


def section(run: Report) -> str:
    """The run's own Markdown, its headings one level down."""
    name = "This server and others" if run.kind == "peers" else "This server"
    lines = tables.render(run).splitlines()[1:]
    deeper = [f"#{line}" if line.startswith("#") else line for line in lines]
    return "\n".join(
        [f"### {name}, {run.machine.date[:10]}", *(f"#{d}" if d.startswith("##") else d for d in deeper), ""]
    )


def write_speed(runs: list[Report]) -> str:
    """The inside of README.md's speed section: the newest run's goals, and the charts."""
    benches = [run for run in runs if run.kind == "bench"]
    lines: list[str] = []
    if benches:
        run = benches[-1]
        dtypes = [dtype for dtype in DTYPES if any(s.dtype == dtype for s in run.chosen)]
        lines += [
            f"On {_title(run)}, {run.machine.date[:10]}; TEI is text-embeddings-inference 1.9.3, scaled by sgemm:",
            "",
        ]
        rows = [[goal.what, *(tables.reached(goal, run, dtype) for dtype in dtypes)] for goal in GOALS]
        lines += tables.table(["", *dtypes], [row for row in rows if set(row[1:]) != {tables.NOTHING}])
    if drawn := charts.draw_all(_peers(runs)):
        names = list(drawn)
        lines += ["", "| | |", "|---|---|"]
        cells = [_picture(name, "docs/charts") for name in names]
        lines += [f"| {' | '.join(cells[i : i + 2])} |" for i in range(0, len(cells), 2)]
    if not lines:
        lines.append("No run in today's format has been saved yet.")
    return "\n".join(lines)


def _peers(runs: list[Report]) -> Report | None:
    """The newest run with others."""
    found = [run for run in runs if run.kind == "peers"]
    return found[-1] if found else None


def read_runs(folder: Path) -> list[Report]:
    """Of each machine and kind the newest, oldest first."""
    newest: dict[tuple[str, str], Report] = {}
    for file in sorted(folder.glob("*.json")):
        run = read(file)
        if run:
            newest[run.machine.slug, run.kind] = run
    return sorted(newest.values(), key=lambda run: run.machine.date)


def files(root: Path, results: Path) -> dict[Path, str]:
    """Everything that is written from the results, by path."""
    runs = read_runs(results)
    readme = (root / "README.md").read_text()
    before, found, rest = readme.partition(START)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        sys.exit(f"README.md lacks the lines `{START}` and `{END}`")
    drawn = charts.draw_all(_peers(runs))
    return {
        root / "docs" / "performance.md": write_page(runs),
        root / "README.md": f"{before}{START}\n\n{write_speed(runs)}\n\n{END}{after}",
        **{root / "docs" / "charts" / name: svg for name, svg in drawn.items()},
    }


def main() -> None:
    for file, content in files(ROOT, RESULTS).items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)


if __name__ == "__main__":
    main()
