"""What logs and traces cost: processor time of the server for each request, with and without them.

    python -m bench.stress.telemetry --model .venv/models/all-MiniLM-L6-v2

Over an engine that computes nothing, so that nothing hides it, and over the real one, to see what part of a request it
is. Processor time and not requests per second: what else runs on the machine changes it less, and only adds to it. So
every way is measured once per round, in turn, and the smallest of the rounds counts.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from bench.load.server import running
from bench.load.texts import SHORT_32, Load, TextMaker, minilm_loads
from bench.load.wrk import generators

QUIET = {"LOG_LEVEL": "off"}


class Taker(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Takes every message and answers with an empty one."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


class HttpTaker(BaseHTTPRequestHandler):
    """Takes every body."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing is written."""


@contextmanager
def collectors() -> Iterator[tuple[str, str]]:
    """Where spans are taken by gRPC, and where by HTTP; in this process, so that they cost the server nothing."""
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Taker(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), HttpTaker) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
            server.stop(None)


def ways(by_grpc: str, by_http: str) -> dict[str, Mapping[str, str]]:
    """Name -> variables of the server's environment."""
    by_protocol = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    return {
        "neither": QUIET,
        "log as text": {},
        "log as JSON": {"JSON_OUTPUT": "true"},
        "traces by gRPC": QUIET | {"OTLP_ENDPOINT": by_grpc},
        "traces by HTTP": QUIET | {"OTLP_ENDPOINT": by_http} | by_protocol,
        "JSON and gRPC": {"JSON_OUTPUT": "true", "OTLP_ENDPOINT": by_grpc},
    }


def cpu_us(command: Sequence[str], env: Mapping[str, str], load: Load, seconds: float) -> float:
    """Processor time of one request in microseconds, all threads, the sending of spans included."""
    with running(command, env) as server, generators([load], server.url) as (wrk,):
        wrk.warm_up(1)
        before = server.cpu_seconds()
        measurement = wrk.run(seconds)
        after = server.cpu_seconds()
    assert before is not None
    assert after is not None
    return (after - before) / measurement.requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stress.telemetry", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--seconds", type=float, default=5, help="per measurement [5]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--only", choices=("no engine", "engine"), help="of the two")
    given = parser.parse_args()
    (load,) = (load for load in minilm_loads(TextMaker(given.model)) if load.name == SHORT_32)
    model = str(given.model)
    commands = {
        "no engine": [sys.executable, "-m", "bench.load.fake_engine", "--model", model],
        "engine": [sys.executable, "-m", "text_embeddings_inference", "--model-id", model, "--prometheus-port", "0"],
    }
    found: dict[tuple[str, str], list[float]] = {}
    with collectors() as (by_grpc, by_http):
        for _ in range(given.rounds):
            for what in [given.only] if given.only else commands:
                for way, env in ways(by_grpc, by_http).items():
                    found.setdefault((what, way), []).append(cpu_us(commands[what], env, load, given.seconds))
    print(f"{load.name}: µs of processor time per request, smallest (and largest) of {given.rounds}")
    for (what, way), each in found.items():
        least, bare = min(each), min(found[what, "neither"])
        print(f"{what:10} {way:15} {least:7.0f} ({max(each):.0f})  {least - bare:+5.0f}  {least / bare - 1:+.1%}")


if __name__ == "__main__":
    main()
