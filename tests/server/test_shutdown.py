"""Signals to a server with work in it: a process of its own, for the second signal ends it at once."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes import PATIENCE
from tests.server.test_serve import wait_until_ready
from text_embeddings_inference.queueing.runner import ENDING

ROOT = Path(__file__).parents[2]
SERVER = """
import os, sys, threading
from pathlib import Path
from tests.fakes import FakeEngine, fake_model
from text_embeddings_inference.server.serve import serve
from text_embeddings_inference.server.sockets import Sockets
from text_embeddings_inference.settings import Settings

began, go, grace = sys.argv[1:]

def wait(batch):
    Path(began).touch()
    while not Path(go).exists():
        threading.Event().wait(0.005)

settings = Settings.of(
    model_id="fake", hostname="127.0.0.1", port=0, prometheus_port=0, grpc_port=0, shutdown_grace=int(grace) or None
)
sockets = Sockets.bind(settings)
model = fake_model(FakeEngine(on_run=wait))
print(sockets.http.getsockname()[1], flush=True)
serve({"fake": model}, settings, sockets)
print(f"hangs: {model.runner.hangs}", flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Served:
    """A server in which a request runs until `go` is there; answers: (status, body), once it has one."""

    process: subprocess.Popen[str]
    port: int
    go: Path
    answers: list[tuple[int, object]]
    client: threading.Thread

    def end(self) -> str:
        """What it prints until it ends; and the request has an answer, or no connection."""
        printed, _ = self.process.communicate(timeout=PATIENCE)
        self.client.join(PATIENCE)
        return printed


@contextmanager
def busy_server(folder: Path, grace: int = 0) -> Iterator[Served]:
    began, go = folder / "began", folder / "go"
    command = [sys.executable, "-c", SERVER, str(began), str(go), str(grace)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            wait_until_ready(("127.0.0.1", port))
            answers: list[tuple[int, object]] = []
            client = threading.Thread(target=ask, args=(port, answers))
            client.start()
            for _ in range(PATIENCE * 100):
                if began.exists():
                    break
                threading.Event().wait(0.01)
            yield Served(process, port, go, answers, client)
        finally:
            process.kill()


def ask(port: int, answers: list[tuple[int, object]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/embed", b'{"inputs": "1"}', {"content-type": "application/json"})
    try:
        response = connection.getresponse()
        answers.append((response.status, json.loads(response.read())))
    except (ConnectionError, http.client.HTTPException):
        pass  # the server was ended at once: there is no answer
    connection.close()


def wait_until_refused(port: int) -> None:
    for _ in range(PATIENCE * 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        threading.Event().wait(0.01)
    raise TimeoutError("the server still listens")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_what_was_accepted_is_finished(tmp_path: Path, number: signal.Signals) -> None:
    with busy_server(tmp_path) as served:
        served.process.send_signal(number)
        wait_until_refused(served.port)
        assert not served.answers
        served.go.touch()
        assert served.end() == "hangs: False\n"
        assert served.process.returncode == 0
        assert [status for status, _ in served.answers] == [200]


def test_what_is_left_after_the_grace_is_answered_with_an_error(tmp_path: Path) -> None:
    with busy_server(tmp_path, grace=1) as served:
        served.process.send_signal(signal.SIGTERM)
        assert served.end() == "hangs: True\n"
        assert served.process.returncode == 0
        assert served.answers == [(424, {"error": f"Backend error: {ENDING}", "error_type": "Backend"})]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with busy_server(tmp_path) as served:
        served.process.send_signal(signal.SIGTERM)
        wait_until_refused(served.port)
        served.process.send_signal(number)
        assert served.end() == ""
        assert served.process.returncode == 128 + number
        assert served.answers == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_end_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with busy_server(tmp_path) as served:
        served.process.send_signal(number)
        served.go.touch()
        served.client.join(PATIENCE)
        assert [status for status, _ in served.answers] == [200]
        served.process.send_signal(signal.SIGTERM)
        assert served.end() == "hangs: False\n"
        assert served.process.returncode == 0
