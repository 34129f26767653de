"""A real Prometheus reads the metrics from both ports, and answers what the Grafana dashboard asks."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.deploy.dashboard import expressions
from tests.fakes import PATIENCE
from tests.server.test_serve import ask, metrics_port, port, wait_until_ready, with_server
from text_embeddings_inference.server.sockets import Sockets

PROMETHEUS = shutil.which("prometheus")
WITHOUT_DATA = ("te_predict", "tei_engine_replacements", "tei_fidelity", "tei_model_info")
"""An embedding model that was not loaded from anywhere, in float32, and whose engine lives, has none of these."""
CONFIG = """
scrape_configs:
  - job_name: tei
    scrape_interval: 200ms
    scrape_timeout: 200ms
    static_configs:
      - targets: ["127.0.0.1:{main}", "127.0.0.1:{metrics}"]
"""


@pytest.mark.skipif(PROMETHEUS is None, reason="no `prometheus` on this machine (Debian: apt-get install prometheus)")
def test_prometheus(tmp_path: Path) -> None:
    def visit(sockets: Sockets) -> None:
        main, metrics = port(sockets.http), metrics_port(sockets)
        (tmp_path / "prometheus.yml").write_text(CONFIG.format(main=main, metrics=metrics))
        number = free_port()
        command = [
            *(str(PROMETHEUS), f"--config.file={tmp_path / 'prometheus.yml'}", "--log.level=error"),
            *(f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{number}"),
        ]
        for body in (b'{"inputs": "1 2 3"}', b'{"inputs": ["1"]}', b'{"inputs": ""}'):
            ask(main, "POST", "/embed", body)
        server = subprocess.Popen(command)
        try:
            wait_until_ready(("127.0.0.1", number))
            wait_for_scrapes(number)
            check(number)
        finally:
            server.terminate()
            server.wait()

    with_server(visit)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return port(probe)


def wait_for_scrapes(number: int) -> None:
    """A rate needs two, of each port."""
    for _ in range(PATIENCE * 10):
        if ask(number, "GET", "/-/ready")[0] == 200:
            found = query(number, "count_over_time(te_request_duration_count[1m])")
            if len(found) == 2 and all(int(sample["value"][1]) >= 2 for sample in found):
                return
        threading.Event().wait(0.1)
    raise TimeoutError("Prometheus does not scrape")


def query(number: int, expression: str) -> list[Any]:
    status, body = ask(number, "GET", f"/api/v1/query?{urlencode({'query': expression})}")
    assert status == 200, f"{expression}: {body!r}"
    result: list[Any] = json.loads(body)["data"]["result"]
    return result


def check(number: int) -> None:
    up = query(number, "up")
    assert [sample["value"][1] for sample in up] == ["1", "1"]
    assert [sample["value"][1] for sample in query(number, 'te_request_count{method="single"}')] == ["2", "2"]
    assert [sample["value"][1] for sample in query(number, "te_request_duration_count")] == ["2", "2"]
    for expression in expressions("30s"):
        name = re.findall(r"\btei?_\w+", expression)[0]
        assert bool(query(number, expression)) is not name.startswith(WITHOUT_DATA), expression
