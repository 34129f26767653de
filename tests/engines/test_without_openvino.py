"""Without OpenVINO our own kernels run our architectures, and what needs it says how to install it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from native.kernels import needs_kernels
from oracle.expected import MODELS
from tests.server.test_serve import wait_until_ready
from text_embeddings_inference import load
from text_embeddings_inference.engines import torch_kinds
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.loading.explain import explain
from text_embeddings_inference.settings import Settings

ONNX = MODELS.parent / "onnx" / "bert"
INSTALL = "pip install 'text-embeddings-inference[openvino]'"
SERVE = """
import sys
sys.modules["openvino"] = None
from text_embeddings_inference.__main__ import main
main()
"""
USERS = ("engines.openvino", "engines.onnx", "ops.openvino", "ops.openvino_layout", "ops.openvino_library")


@pytest.fixture(autouse=True)
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed: whatever imports it fails."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(torch_kinds, "has_gpu_driver", lambda: False)
    for name in USERS:
        monkeypatch.delitem(sys.modules, f"text_embeddings_inference.{name}", raising=False)


def problem_of(**options: Any) -> str:
    with pytest.raises(UnsupportedError) as caught:
        load(**options)
    return str(caught.value)


@needs_kernels
@pytest.mark.parametrize("engine", ["auto", "native"])
def test_our_architectures_run(engine: str) -> None:
    with load(MODELS / "bert", engine=engine, dtype="float32") as model:
        assert np.linalg.norm(model.embed(["a text"])) == pytest.approx(1, abs=1e-5)


@needs_kernels
def test_a_server_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--model-id", MODELS / "bert", "--engine", "native", "--hostname", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([sys.executable, "-c", SERVE, *options, "--prometheus-port", "0"]) as process:
        try:
            wait_until_ready(("127.0.0.1", port))
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("POST", "/embed", json.dumps({"inputs": "a text"}), {"Content-Type": "application/json"})
            [vector] = json.load(client.getresponse())
            client.close()
        finally:
            process.terminate()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_asked_for() -> None:
    problem = f"`--engine openvino`: OpenVINO is not installed\nhint: {INSTALL}"
    assert problem_of(model=MODELS / "bert", engine="openvino") == problem


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_a_graph(engine: str) -> None:
    problem = problem_of(model=ONNX, engine=engine)
    assert "model.onnx is an ONNX graph, which needs OpenVINO, and that is not installed" in problem
    assert INSTALL in problem


def test_a_graph_explained() -> None:
    [problem] = explain(Settings.of(model_id=str(ONNX))).problems
    assert problem.message.endswith("which needs OpenVINO, and that is not installed")
    assert problem.hint == INSTALL


def test_a_graph_that_another_engine_is_asked_for() -> None:
    """`--engine auto`, which is what the hint says, names OpenVINO where it is missing."""
    assert "model.onnx is an ONNX graph, which OpenVINO runs\nhint: use `--engine auto`" in problem_of(
        model=ONNX, engine="native"
    )
