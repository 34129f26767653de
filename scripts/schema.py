"""Tries what the OpenAPI description says, and what it excludes, on servers of four kinds of models, with schemathesis.

Usage: schema.py text-embeddings-router schemathesis [arguments of `schemathesis run`]. Ends with 1 if a server answers
5xx, or anything that its description leaves out.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = Path(__file__).parents[1] / "tests" / "fixtures" / "models"
KINDS = ("bert", "bert-splade", "bert-classifier", "bert-reranker")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
CASES = 300
"""Random ones for each operation, at most; to those come the borders of each type."""
LIMIT_S = 60
"""For each kind of model."""


def try_model(name: str, router: str, schemathesis: str, arguments: list[str]) -> bool:
    """Serves the model while schemathesis runs; whether it found nothing."""
    port = str(free_port())
    command = [router, "--model-id", str(MODELS / name), "--hostname", "127.0.0.1", "--port", port]
    options = ["--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS), "--continue-on-failure"]
    options += ["--max-examples", str(CASES), "--max-time", str(LIMIT_S), "--wait-for-schema", "60", *arguments]
    pooling = ["--pooling", "splade"] if name.endswith("splade") else []
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        server = subprocess.Popen([*command, *pooling, "--prometheus-port", "0"], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/api-doc/openapi.json"
            found = subprocess.run([schemathesis, "run", url, *options], cwd=folder, check=False)
            alive = server.poll() is None
        finally:
            server.terminate()
            server.wait()
    if not alive:
        print(f"the server of {name} ended with {server.returncode}", file=sys.stderr)
    return alive and found.returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
        return number


def main() -> int:
    router, schemathesis, *arguments = sys.argv[1:]
    # Absolute: schemathesis runs in a folder of its own, where it leaves its files.
    router, schemathesis = str(Path(router).absolute()), str(Path(schemathesis).absolute())
    results = [try_model(name, router, schemathesis, arguments) for name in KINDS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
