"""Writes docs/metrics.md: every metric, as `telemetry/metrics.py` declares it.

python scripts/metrics_page.py docs/metrics.md      (make metrics-page)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from text_embeddings_inference.telemetry.instruments import Instrument
from text_embeddings_inference.telemetry.metrics import Metrics

INTRODUCTION = """\
# Metrics

<!-- Written by scripts/metrics_page.py from telemetry/metrics.py: change that, then run `make metrics-page`. -->

`GET /metrics` of the main port, and any path of `--prometheus-port`, give them in the text format of Prometheus,
without a key. A metric appears after its first use. `deploy/grafana/dashboard.json` is a dashboard made of them.

A request with 8 inputs adds 1 to what counts requests and 8 to what counts inputs. Bounds of durations are
`1e-5 * 1.5^k` seconds, k from 1 to 35; those of lengths and sizes are powers of two.
"""
THEIRS = """
## Those of text-embeddings-inference

Names, labels and bounds are those of version 1.9.3; `docs/differences.md` says where the counting differs.
"""
OURS = """
## Our own
"""
HEAD = ["| name | type | labels | unit | meaning |", "|---|---|---|---|---|"]


def page() -> str:
    """The whole file."""
    instruments = Metrics(512).instruments
    theirs = [found for found in instruments if found.name.startswith("te_")]
    ours = [found for found in instruments if found not in theirs]
    return "\n".join([INTRODUCTION, *_table(THEIRS, theirs), *_table(OURS, ours)])


def _table(title: str, instruments: Iterable[Instrument]) -> list[str]:
    return [title.strip(), "", *HEAD, *map(_row, instruments), ""]


def _row(found: Instrument) -> str:
    labels = ", ".join(f"`{label}`" for label in found.labels)
    return f"| `{found.name}` | {found.kind} | {labels} | {found.unit} | {found.about} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
