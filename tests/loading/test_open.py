"""A model on the engine that was asked for, and an engine that is closed where a start fails."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from extras import needs_torch
from fakes import FakeEngine
from oracle.expected import MODELS
from text_embeddings_inference import cli, load
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.loading import load as loading
from text_embeddings_inference.loading import open as opening
from text_embeddings_inference.loading.open import open_model
from text_embeddings_inference.settings import Settings


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_on_pytorch(dtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, texts = MODELS / "bert", ["What is deep learning?", "I like pizza"]
    with load(path, engine="torch", dtype=dtype, threads=1, streams=2, compile_cache=tmp_path) as one:
        vectors = one.embed(texts)
        assert (one.info.engine, one.info.dtype) == ("torch", dtype)
    assert "`--streams` is ignored" in caplog.text
    assert "`--compile-cache` is ignored" in caplog.text
    with load(path, engine="openvino", dtype="float32") as other:
        cosines = np.sum(vectors * other.embed(texts), 1)
    assert cosines.min() > (0.99999 if dtype == "float32" else 0.9999)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine of the next start."""
    made = FakeEngine()
    monkeypatch.setattr(opening, "make_engine", lambda *_: made)
    return made


def fail(*_: object, **__: object) -> None:
    raise StartError("something else is wrong")


def test_an_engine_that_nobody_took_is_closed(engine: FakeEngine) -> None:
    settings = Settings.of(model_id=str(MODELS / "bert"))
    with pytest.raises(StartError, match="something else"), open_model(settings):
        fail()
    assert engine.closed == 1
    with open_model(settings) as opened:
        assert opened.engine is engine
    assert engine.closed == 1, "whoever took it closes it"


@pytest.mark.parametrize("place", ["the tokenizer", "the engine"])
def test_a_start_that_fails_leaves_no_engine_no_thread_and_no_port(
    place: str, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "the tokenizer":
        monkeypatch.setattr(loading, "load_tokenizer", fail)
    else:
        engine.on_run = fail
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    before = threading.enumerate()
    arguments = ["--hostname", "127.0.0.1", "--port", str(port), "--prometheus-port", "0"]
    assert cli.main(["--model-id", str(MODELS / "bert"), *arguments]) == 1
    assert "something else is wrong" in capsys.readouterr().err
    assert engine.closed
    left = {thread.name for thread in threading.enumerate() if thread not in before}
    assert left <= {"log-writer"}, "which stays: what ends the process is logged"
    socket.create_server(("127.0.0.1", port)).close()
