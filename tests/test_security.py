"""What SECURITY.md promises of a running server, as far as no other test holds it."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.fakes import FakeEngine, fake_info, fake_model
from tests.server.client import JSON, Client
from tests.server.grpc.calling import calling, run
from text_embeddings_inference import load
from text_embeddings_inference.server.api.routes import routes
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.types import Kind, Pooling

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "tests" / "fixtures" / "models" / "bert"
TROUBLE = f'Exception from {ROOT}/engine.cpp:224:\nTraceback (most recent call last):\n  File "{__file__}", line 1'
BODIES: dict[str, Any] = {
    "/predict": {"inputs": "1"},
    "/rerank": {"query": "1", "texts": ["2"]},
    "/similarity": {"inputs": {"source_sentence": "1", "sentences": ["2"]}},
    "/decode": {"ids": [1]},
    "/v1/embeddings": {"input": "1"},
    "/embeddings": {"input": "1"},
    "/vertex": {"instances": [{"inputs": "1"}]},
}
INFOS = {
    "/predict": fake_info(Kind.CLASSIFIER),
    "/rerank": fake_info(Kind.RERANKER),
    "/embed_sparse": fake_info(pooling=Pooling.SPLADE),
}
POSTS = [route.path for route in routes(fake_info(), None) if route.post is not None]


def tells_nothing(answer: bytes) -> bool:
    return not any(word in answer for word in (b"Traceback", b"engine.cpp", b".py", str(ROOT).encode()))


@pytest.mark.parametrize("path", POSTS)
def test_no_answer_tells_what_the_engine_says(path: str) -> None:
    def fail(_: object) -> None:
        raise RuntimeError(TROUBLE)

    info = INFOS.get(path, fake_info())
    engine = FakeEngine(on_run=fail, dimensions=info.dimensions)
    with Client(fake_model(engine, info=info)) as client:
        found = client.post(path, BODIES.get(path, {"inputs": "1"}))
    needs_engine = path not in ("/tokenize", "/decode")
    assert bool(engine.batches) is needs_engine
    assert found.status == (424 if needs_engine else 200) or path == "/vertex"
    assert tells_nothing(found.body)


@pytest.mark.parametrize("path", POSTS)
def test_no_answer_tells_of_a_mistake_of_ours(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError(TROUBLE)

    info = INFOS.get(path, fake_info())
    with Client(fake_model(FakeEngine(dimensions=info.dimensions), info=info)) as client:
        for name in ("embed", "embed_all", "embed_sparse", "predict", "rerank", "similarity", "tokenize", "decode"):
            if hasattr(client.model, name):
                monkeypatch.setattr(client.model, name, broken)
        found = client.post(path, BODIES.get(path, {"inputs": "1"}))
    assert found.status == 500
    assert tells_nothing(found.body)


@pytest.mark.parametrize("server", ["http", "grpc"])
@pytest.mark.parametrize("given", ["Bearer first", "Bearer second", "Bearer wrong", ""])
def test_every_key_is_compared_in_constant_time(server: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key fits, each is compared, and by `hmac.compare_digest`."""
    compared = []
    digest = hmac.compare_digest

    def compare(found: bytes, key: bytes) -> bool:
        compared.append((found, key))
        return digest(found, key)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert (info_by_http if server == "http" else info_by_grpc)(given) is (given in ("Bearer first", "Bearer second"))
    assert compared == [(given.encode(), b"Bearer first"), (given.encode(), b"Bearer second")]


def info_by_http(given: str) -> bool:
    """Whether a request with this header is answered."""
    with Client(api_key=("first", "second")) as client:
        return client.get("/info", {"authorization": given}).status == 200


def info_by_grpc(given: str) -> bool:
    async def call() -> bool:
        async with calling(api_key=("first", "second")) as stub:
            try:
                await stub("Info.Info", tei.InfoRequest(), metadata=(("authorization", given),))
            except grpc.aio.AioRpcError as error:
                return error.code() is not grpc.StatusCode.UNAUTHENTICATED
        return True

    return run(call())


LIFE = f"""
import os, signal, socket, sys, threading, time, urllib.request
outside = []

def watch(event, arguments):
    '''The standard library's events: https://docs.python.org/3/library/audit_events.html'''
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != socket.AF_UNIX:
        if arguments[1][0] != "127.0.0.1":
            outside.append((event, arguments[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in (None, "127.0.0.1"):
        outside.append((event, arguments[0]))

sys.addaudithook(watch)

def ask(path, body=None, key=True):
    headers = {{"content-type": "application/json"}} | ({{"authorization": "Bearer t0p-s3cret"}} if key else {{}})
    request = urllib.request.Request(f"http://127.0.0.1:{{port}}{{path}}", body, headers)
    try:
        return urllib.request.urlopen(request, timeout=10).read()
    except urllib.error.HTTPError as error:
        return error.read()

def visit():
    global answers
    while not ready():
        time.sleep(0.02)
    answers = [ask("/embed", b'{{"inputs": "a pr1vate text"}}')]
    answers += map(ask, ("/info", "/metrics", "/docs/", "/api-doc/openapi.json"))
    answers += [ask("/info", key=False), ask("/embed", b"{{", True), ask("/nothing")]
    os.kill(os.getpid(), signal.SIGTERM)

def ready():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
threading.Thread(target=visit, daemon=True).start()
from text_embeddings_inference.cli import main
arguments = ["--model-id", {str(MODEL)!r}, "--hostname", "127.0.0.1", "--port", str(port), "--prometheus-port", "0"]
status = main([*arguments, "--served-model-name", "mine", "--warmup", "off"])
sys.stdout.write(b"".join(answers).decode())
print("\\nEND", status, len(answers[0]) > 100, outside)
"""


def test_a_local_model_needs_no_network_and_keys_and_texts_are_told_to_nobody() -> None:
    """A whole life of the server: start, requests, stop. Logs and answers are searched for what is secret.

    What is watched is the interpreter's own network calls; the engine and the tokenizer have none.
    """
    secrets = {"API_KEY": "t0p-s3cret", "HF_TOKEN": "hf_s3cret"}
    environment = os.environ | secrets | {"PYTHONPATH": os.pathsep.join(sys.path), "LOG_LEVEL": "trace"}
    command = [sys.executable, "-c", LIFE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.stdout.endswith("\nEND 0 True []\n"), done.stdout[-500:] + done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "pr1vate" not in done.stdout + done.stderr


def test_code_of_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoTokenizer": ["code.Tokenizer", None]}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": code, "trust_remote_code": True}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w')")
    with load(folder) as model:
        assert model.embed(["text"]).shape == (1, config["hidden_size"])
    assert not (tmp_path / "witness").exists()


def test_documentation_comes_from_this_server_alone() -> None:
    with Client() as client:
        page = client.get("/docs/", JSON)
    assert b"//" not in page.body
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
