"""Our own kernels beside OpenVINO, by the processor time of one thread: `python -m bench.engines`.

    python -m bench.engines                                   # this machine's best kernels
    ONEDNN_MAX_CPU_ISA=AVX2 python -m bench.engines --level avx2 --dtypes float32,int16,int8

Both engines run the same random models in turn, OpenVINO in float32 beside int16, which it does not have. The least of
all rounds counts, which other work on the machine changes little. What `auto` knows of both engines comes from here
(`engines/native_kind.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.engines.beside import texts, work_of
from bench.engines.models import SHAPES, Shape, checkpoint_of, random_weights
from bench.load.texts import ragged_lengths
from bench.report.machine import describe
from text_embeddings_inference.engines.base import Engine, Need, Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.engines.openvino import OpenVINOEngine
from text_embeddings_inference.native.kernels import find_kernels
from text_embeddings_inference.native.library import Level
from text_embeddings_inference.settings import Settings

RESULTS = Path(__file__).parents[1] / "results"
RAGGED_TEXTS = 32
Table = dict[str, dict[str, dict[str, float]]]
"""Milliseconds by model and number type, load, engine."""


LOADS = {
    "1 x 16": [16],
    "1 x 128": [128],
    "8 x 128": [128] * 8,
    "ragged": ragged_lengths(RAGGED_TEXTS),
    "1 x 512": [512],
}


def make_engines(shape: Shape, dtype: str, level: Level) -> dict[str, Engine]:
    need = Need(checkpoint_of(shape), Settings.of(model_id="m", threads=1, streams=1, no_compile_cache=True))
    with random_weights():
        native = NativeEngine(need, Offer("native", dtype, 1, 1), level)
        openvino = OpenVINOEngine(need, Offer("openvino", "float32" if dtype == "int16" else dtype, 1, 1))
        openvino.run(openvino.arrange(texts([8])))  # it compiles in the background
    return {"native": native, "openvino": openvino}


def measure(engines: dict[str, Engine], loads: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of each load by engine, the least of all rounds in turn, of which there are at least three."""
    found: dict[str, dict[str, float]] = {}
    for load in loads:
        work = {name: work_of(engine, LOADS[load]) for name, engine in engines.items()}
        least, end, rounds = dict.fromkeys(engines, float("inf")), time.monotonic() + seconds, 0
        while rounds < 4 or time.monotonic() < end:
            for name in engines:
                begin = time.process_time()
                work[name].run(None)
                if rounds:  # the first one makes kernels for the shape
                    least[name] = min(least[name], 1000 * (time.process_time() - begin))
            rounds += 1
        found[load] = least
    return found


def rows(table: Table) -> list[str]:
    """The table as Markdown: native, OpenVINO, and how many times as fast native is."""
    loads = list(next(iter(table.values())))
    head = ["ms: native, OpenVINO (times as fast)", *loads, "times as fast, geometric mean"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for model, by_load in table.items():
        ratios = [ms["openvino"] / ms["native"] for ms in by_load.values()]
        times = [f"{ms['native']:.3g}, {ms['openvino']:.3g}" for ms in by_load.values()]
        cells = [f"{both} ({ratio:.2f})" for both, ratio in zip(times, ratios, strict=True)]
        lines.append(f"| {model} | {' | '.join(cells)} | {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description="Compares the engines for CPUs.")
    parser.add_argument("--models", default=",".join(SHAPES), help="some of them, with commas between")
    parser.add_argument("--loads", default="1 x 16,1 x 128,8 x 128,ragged", help=f"of {', '.join(LOADS)}")
    parser.add_argument("--dtypes", default="float32,bfloat16,int8")
    parser.add_argument("--level", default="auto", help="of the kernels, as `--cpu-level`")
    parser.add_argument("--seconds", type=float, default=2, help="for each load of each model")
    parser.add_argument("--results", type=Path, help=f"folder to save into, such as {RESULTS.name}")
    given = parser.parse_args(arguments)
    table: Table = {}
    level = find_kernels(given.level)
    for name in given.models.split(","):
        for dtype in given.dtypes.split(","):
            engines = make_engines(SHAPES[name], dtype, level)
            table[f"{name}, {dtype}"] = measure(engines, given.loads.split(","), given.seconds)
            for engine in engines.values():
                engine.close()
            print("\n".join(rows({f"{name}, {dtype}": table[f"{name}, {dtype}"]})[-1:]), file=sys.stderr, flush=True)
    print("\n".join(rows(table)))
    if given.results:
        save(table, level.name, given.results)


def save(table: Table, level: str, folder: Path) -> None:
    """Writes the table as Markdown and as JSON, named by date, machine and kernels."""
    machine = describe()
    name = f"{machine.date[:10]}-{machine.slug}-engines-{level}"
    record = {"machine": asdict(machine), "level": level, "isa": os.environ.get("ONEDNN_MAX_CPU_ISA"), "ms": table}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    about = f"{machine.date}, {machine.cpu}, {machine.commit}: kernels `{level}`, one thread, processor time"
    (folder / f"{name}.md").write_text("\n".join([about, "", *rows(table), ""]))


if __name__ == "__main__":
    main()
