"""Sends a `Load` to a server with wrk, which is written in C and needs a few microseconds per request."""

from __future__ import annotations

import itertools
import json
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load.texts import Load

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_S = 180


class BenchError(Exception):
    """The bench can't go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What wrk saw of one load.

    p50_ms ...: latency, from sending a request to the end of its answer; errors: answers with a status of 400 or more
    (refused), and broken connections; client_cores: processor time that wrk itself took, per second.
    """

    requests: int
    seconds: float
    tokens: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    client_cores: float
    refused: int = 0

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


class Wrk:
    """A load generator for one `Load`. Each run goes on in the list of bodies where the last one stopped.

    pause_ms: how long a connection waits on average before it sends a request: anything up to twice that.
    """

    def __init__(self, load: Load, url: str, folder: Path, path: str = "/embed", pause_ms: int = 0) -> None:
        self.load = load
        self._pause_ms = pause_ms
        self._url = url + path
        self._position = 0
        self._file = folder / (re.sub(r"\W+", "-", load.name) + ".jsonl")
        self._file.write_bytes(b"".join(body + b"\n" for body in load.bodies))

    def warm_up(self, seconds: float) -> None:
        """Traffic that is not measured."""
        self._send(_whole(seconds))

    def run(self, seconds: float) -> Measurement:
        """Keeps all connections busy for `seconds`, rounded to whole ones. What is unanswered then doesn't count.

        If nothing was answered it tries again with more time, up to TIMEOUT_S, and then raises BenchError.
        """
        while True:
            first = self._position + 1  # wrk asks its script for one request before it starts, to see how long it is
            before = _children_cpu_seconds()
            result = self._send(_whole(seconds))
            cpu = _children_cpu_seconds() - before
            if result["requests"]:
                break
            seconds *= 3
            if seconds > TIMEOUT_S:
                raise BenchError(f"no answer within {_whole(seconds / 3)} s to {self.load.name}")
        seconds_run = result["microseconds"] / 1e6
        return Measurement(
            requests=result["requests"],
            seconds=seconds_run,
            tokens=sum(self._cycle(first, result["requests"])),
            p50_ms=result["p50_us"] / 1e3,
            p95_ms=result["p95_us"] / 1e3,
            p99_ms=result["p99_us"] / 1e3,
            errors=result["refused"] + result["broken"],
            client_cores=cpu / seconds_run,
            refused=result["refused"],
        )

    def _send(self, seconds: int) -> dict[str, int]:
        """Runs wrk; gives what wrk.lua prints."""
        command = [find_wrk(), "--threads", "1", "--connections", str(self.load.connections), "--latency"]
        command += ["--duration", f"{seconds}s", "--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), self._url]
        command += ["--", str(self._file), str(self._position), str(self._pause_ms)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + TIMEOUT_S)
        found = re.search(r"^RESULT (.+)$", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise BenchError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
        result: dict[str, int] = json.loads(found[1])
        self._position += 1 + result["requests"] + self.load.connections
        return result

    def _cycle(self, first: int, count: int) -> Iterator[int]:
        """The tokens of `count` requests from index `first` on: those sent first are, near enough, those answered."""
        start = first % len(self.load.tokens)
        return itertools.islice(itertools.cycle(self.load.tokens), start, start + count)


@contextmanager
def generators(loads: list[Load], url: str, path: str = "/embed") -> Iterator[list[Wrk]]:
    """A generator for each load; their files last as long as the context."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield [Wrk(load, url, Path(folder), path) for load in loads]


def _whole(seconds: float) -> int:
    """wrk can do whole seconds only."""
    return max(1, round(seconds))


def find_wrk() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise BenchError("the load generator wrk is not installed\nhint: apt-get install wrk, or brew install wrk")
    return path


def _children_cpu_seconds() -> float:
    """Processor time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
