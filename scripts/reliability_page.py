"""Writes the figures of bench.stress.overload and bench.stress.soak into docs/reliability.md.

python -m scripts.reliability_page docs/reliability.md     (make overload and make soak do it)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.stress import overload, soak
from bench.stress.overload import Overload
from bench.stress.soak import Soak

BEGIN, END = "<!-- figures: written by scripts/reliability_page.py -->", "<!-- end of figures -->"


def with_figures(text: str, figures: str) -> str:
    """The page with other figures between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def table(overloaded: Overload | None, soaked: Soak | None) -> str:
    """What was measured; both may be missing."""
    rows = [*_overload(overloaded), *_soak(soaked)]
    lines = [f"| {what} | {goal} | {found} |" for what, goal, found in rows]
    return (
        "\n".join(["", "| measured | goal | found |", "|---|---|---|", *lines, ""]) if rows else "\nNot measured yet.\n"
    )


def _overload(found: Overload | None) -> Iterator[tuple[str, str, str]]:
    if found is None:
        return
    yield "offered, times the peak", "10", f"{found.offered / found.peak:.0f} ({found.offered:.0f} requests per second)"
    yield "goodput under overload", "90 % of the peak", f"{found.share:.0%} ({found.goodput:.0f} of {found.peak:.0f})"
    yield "429: p50, p99", "20 ms", f"{found.refused_p50_ms:.1f} ms, {found.refused_p99_ms:.1f} ms"
    yield (
        "200: p50, p99",
        f"the queue's length, {found.bound_ms:.0f} ms",
        f"{found.accepted_p50_ms:.0f} ms, {found.accepted_p99_ms:.0f} ms",
    )
    yield "answers with another status, or none", "0", str(found.others)


def _soak(found: Soak | None) -> Iterator[tuple[str, str, str]]:
    if found is None:
        return
    statuses = ", ".join(f"{status}: {count}" for status, count in found.statuses.items())
    yield "soak", "600 s", f"{found.seconds:.0f} s; {statuses}; left without waiting: {found.left}"
    yield "soak: status 500 and more, or no answer", "0", str(found.errors + found.broken)
    yield (
        "soak: memory once settled",
        "flat within 5 %",
        f"{found.memory_least:.0f} to {found.memory_most:.0f} MB ({found.growth:.1%})",
    )
    yield "soak: largest change of a vector's value", "0", f"{found.distance:.1e}"


def read_overload(file: Path) -> Overload | None:
    return Overload(**json.loads(file.read_text())) if file.exists() else None


def read_soak(file: Path) -> Soak | None:
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return Soak(**found | {"statuses": {int(status): count for status, count in found["statuses"].items()}})


def main() -> None:
    page = Path(sys.argv[1])
    figures = table(read_overload(overload.RESULTS), read_soak(soak.RESULTS))
    page.write_text(with_figures(page.read_text(), figures))


if __name__ == "__main__":
    main()
