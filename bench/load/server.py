"""The server under test: started as a process of its own, timed, watched and stopped."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.load.wrk import BenchError

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 15
POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MB (10^6 bytes): now, the most there ever was, and of now's the part that is the process's own
    and the part that lies in mapped files (weights and libraries, which the kernel can drop)."""

    resident: float
    peak: float
    anonymous: float
    mapped: float


def memory_of(pid: int) -> Memory:
    """Of a running process."""
    text = Path(f"/proc/{pid}/status").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    megabytes = {name: value * 1024 / 1e6 for name, value in kib.items()}
    return Memory(megabytes["VmRSS"], megabytes["VmHWM"], megabytes["RssAnon"], megabytes["RssFile"])


@dataclass(frozen=True, slots=True)
class Counters:
    """Tokens that requests asked for, and tokens computed, padding included: totals since the start."""

    asked: float
    computed: float


class Server:
    """A running server. `pid` is None if it was started by someone else."""

    def __init__(self, url: str, pid: int | None = None) -> None:
        self.url = url.rstrip("/")
        self.pid = pid

    def get(self, path: str) -> str:
        return self._request("GET", path).decode()

    def post(self, path: str, body: bytes) -> None:
        """One request. Raises BenchError unless it is answered with 200."""
        self._request("POST", path, body)

    def memory(self) -> Memory | None:
        return None if self.pid is None else memory_of(self.pid)

    def cpu_seconds(self) -> float | None:
        """Processor time of the process so far, all threads."""
        if self.pid is None:
            return None
        # The name of the program, in brackets, may hold blanks.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mean(self, histogram: str) -> float:
        """The mean of a histogram of /metrics. Raises BenchError if the server has none of that name."""
        text = self.get("/metrics")
        found = [re.search(rf"^{histogram}_{part} (\S+)$", text, re.MULTILINE) for part in ("sum", "count")]
        if None in found:
            raise BenchError(f"{self.url}/metrics has no {histogram}")
        total, count = (float(match[1]) for match in found if match)
        return total / count

    def counters(self) -> Counters | None:
        """From /metrics; None if this server does not count tokens (as TEI)."""
        text = self.get("/metrics")
        totals = [
            [float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)]
            for name in ("tei_batch_tokens_total", "tei_batch_computed_tokens_total")
        ]
        return Counters(sum(totals[0]), sum(totals[1])) if all(totals) else None

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=START_TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            answer = response.read()
        except OSError as error:
            raise BenchError(f"{self.url} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise BenchError(f"{method} {path}: status {response.status}: {answer[:300].decode(errors='replace')}")
        return answer


def router_command(model: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command that starts the installed server on `model`; the port is still to be added."""
    return [str(Path(sysconfig.get_path("scripts")) / "text-embeddings-router"), "--model-id", model, *arguments]


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Starts `command --port FREE` and waits until /health says yes; stops it at the end. env: added to our own."""
    with _spawned(command, env) as (process, server, log):
        _wait_for(process, server, log, lambda: server.get("/health"))
        yield server


def time_to_first_answer(
    command: Sequence[str], body: bytes, path: str = "/embed", env: Mapping[str, str] | None = None
) -> float:
    """Seconds from starting the process to the end of the first answer."""
    start = time.perf_counter()
    with _spawned(command, env) as (process, server, log):
        _wait_for(process, server, log, lambda: server.post(path, body))
        return time.perf_counter() - start


@contextmanager
def _spawned(
    command: Sequence[str], env: Mapping[str, str] | None
) -> Iterator[tuple[subprocess.Popen[bytes], Server, Path]]:
    port = _free_port()
    with tempfile.NamedTemporaryFile(prefix="bench-server-", suffix=".log") as log:
        full, whole = [*command, "--port", str(port)], os.environ | {"NO_COLOR": "1"} | dict(env or {})
        try:
            process = subprocess.Popen(full, stdout=log, stderr=subprocess.STDOUT, env=whole)
        except OSError as error:
            raise BenchError(f"can't start {full[0]}: {error.strerror}\nhint: run it as `make bench`") from error
        try:
            yield process, Server(f"http://127.0.0.1:{port}", process.pid), Path(log.name)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"the server did not stop within {STOP_TIMEOUT_S} s of SIGTERM and was killed", file=sys.stderr)


def _wait_for(process: subprocess.Popen[bytes], server: Server, log: Path, request: Callable[[], object]) -> None:
    """Repeats `request` until it succeeds."""
    deadline = time.perf_counter() + START_TIMEOUT_S
    while True:
        # Connecting alone is cheap: the waiting must not take time from what is waited for.
        if _listens(server):
            request()
            return
        if process.poll() is not None:
            raise BenchError(f"the server ended with code {process.returncode}:\n{log.read_text()[-3000:]}")
        if time.perf_counter() > deadline:
            raise BenchError(f"the server did not answer within {START_TIMEOUT_S} s:\n{log.read_text()[-3000:]}")
        time.sleep(POLL_S)


def _listens(server: Server) -> bool:
    address = urlsplit(server.url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname or "", address.port or 80)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
