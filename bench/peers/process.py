"""The peers as this side sees them: a library in a process of its own, or a server with another route."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from bench.load.server import Memory, memory_of
from bench.load.texts import Load
from bench.load.wrk import BenchError, Measurement

CHILD = Path(__file__).with_name("child.py")
INFINITY_PATH = "/embeddings"
INFINITY_MODEL = "model"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Nothing is fetched and nothing reported."""


@dataclass(frozen=True, slots=True)
class Answer:
    """calls: seconds of each call; dtype: what is computed in."""

    calls: list[float]
    dtype: str


class Library:
    """A library in its own environment. A load of N connections becomes calls of N texts, one call after another."""

    def __init__(self, process: subprocess.Popen[str], log: Path, folder: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log
        self._folder = folder
        self._positions: dict[str, int] = {}

    def run(self, load: Load, seconds: float) -> tuple[Measurement, str]:
        """At least one call, and calls for at least `seconds`; also what is computed in."""
        first = self._positions.get(load.name, 0)
        answer = self.ask(self._file(load), first, load.connections, seconds)
        texts = len(answer.calls) * load.connections
        self._positions[load.name] = first + texts
        start = first % len(load.tokens)
        tokens = sum(itertools.islice(itertools.cycle(load.tokens), start, start + texts))
        return measurement_of(answer.calls, texts, tokens), answer.dtype

    def ask(self, file: Path, first: int, count: int, seconds: float) -> Answer:
        order = {"file": str(file), "first": first, "count": count, "seconds": seconds}
        try:
            _stream(self._process.stdin).write(json.dumps(order) + "\n")
            _stream(self._process.stdin).flush()
        except BrokenPipeError:
            pass  # the empty answer says it too
        line = _stream(self._process.stdout).readline()
        if not line:
            raise BenchError(f"the library ended:\n{self._log.read_text()[-3000:]}")
        return Answer(**json.loads(line))

    def memory(self) -> Memory:
        return memory_of(self.pid)

    def _file(self, load: Load) -> Path:
        file = self._folder / (load.name.replace(" ", "-").replace(",", "") + ".jsonl")
        if not file.exists():
            file.write_bytes(b"".join(body + b"\n" for body in load.bodies))
        return file


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "opened as a pipe"
    return stream


def measurement_of(calls: Sequence[float], texts: int, tokens: int) -> Measurement:
    """A text's latency is that of its call; a text counts as a request."""
    return Measurement(
        requests=texts,
        seconds=sum(calls),
        tokens=tokens,
        p50_ms=percentile(calls, 50) * 1e3,
        p95_ms=percentile(calls, 95) * 1e3,
        p99_ms=percentile(calls, 99) * 1e3,
        errors=0,
        client_cores=0.0,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@contextmanager
def library(python: Path, kind: str, folder: Path) -> Iterator[Library]:
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as scratch:
        log = Path(scratch) / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(python), str(CHILD), kind, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                env=os.environ | OFFLINE,
            )
        try:
            yield Library(process, log, Path(scratch))
        finally:
            process.kill()
            process.wait()
            _stream(process.stdin).close()
            _stream(process.stdout).close()


def library_start(python: Path, kind: str, folder: Path, load: Load) -> float:
    """Seconds from starting the process to its first vector."""
    start = time.perf_counter()
    with library(python, kind, folder) as peer:
        peer.run(replace(load, connections=1), 0)
        return time.perf_counter() - start


def for_infinity(load: Load) -> Load:
    """The same texts as requests of OpenAI's API, which infinity speaks."""
    bodies = [
        json.dumps({"input": json.loads(body)["inputs"], "model": INFINITY_MODEL}).encode() for body in load.bodies
    ]
    return replace(load, bodies=bodies)


def infinity_command(venv: Path, folder: Path) -> list[str]:
    """The port is still to be added. Without its warm-up, whose long texts would be most of its start."""
    options = ["--model-id", str(folder), "--served-model-name", INFINITY_MODEL, "--engine", "torch", "--device", "cpu"]
    options += ["--dtype", "float32"]
    return [str(venv / "bin" / "infinity_emb"), "v2", *options, "--no-model-warmup", "--host", "127.0.0.1"]
