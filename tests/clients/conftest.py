"""Servers for the clients. The clients are in an environment of their own (`make test-clients`), the servers in .venv;
`make test` goes past all of this."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.load.server import running

CLIENTS = ("chromadb", "haystack", "huggingface_hub", "langchain_huggingface", "litellm", "llama_index", "openai")
collect_ignore = [] if all(map(find_spec, CLIENTS)) else ["test_clients.py", "test_errors.py", "test_frameworks.py"]

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "models"
KEY = "secret"

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # or it fetches a list of prices when it is imported
os.environ["ANONYMIZED_TELEMETRY"] = "false"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"


def serve(model: Path, *options: str) -> Iterator[str]:
    router = ROOT / ".venv" / "bin" / "text-embeddings-router"
    given = ["--dtype", "float32", "--api-key", KEY, "--prometheus-port", "0", *options]
    with running([str(router), "--model-id", str(model), *given]) as server:
        yield server.url


@pytest.fixture(scope="session")
def minilm() -> Iterator[str]:
    yield from serve(ROOT / ".venv" / "models" / "all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def bert() -> Iterator[str]:
    yield from serve(FIXTURES / "bert")


@pytest.fixture(scope="session")
def prompted() -> Iterator[str]:
    """XLM-RoBERTa with the prompts `query` and `passage`."""
    yield from serve(FIXTURES / "xlm-roberta")


@pytest.fixture(scope="session")
def classifier() -> Iterator[str]:
    yield from serve(FIXTURES / "bert-classifier")


@pytest.fixture(scope="session")
def reranker() -> Iterator[str]:
    yield from serve(FIXTURES / "bert-reranker")


@pytest.fixture(scope="session")
def strict() -> Iterator[str]:
    """One input at a time, bodies of at most 300 bytes."""
    yield from serve(FIXTURES / "bert", "--max-concurrent-requests", "1", "--payload-limit", "300")
