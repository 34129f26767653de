"""Which engine runs a model, and what is said where it can't be had."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extras import needs_torch
from oracle.expected import MODELS
from text_embeddings_inference import load
from text_embeddings_inference.checkpoint import Facts
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.loading import open as opening
from text_embeddings_inference.loading.open import plan_engine
from text_embeddings_inference.settings import Settings

BERT = Facts(first_position=0)


def settings(**options: Any) -> Settings:
    return Settings.of(model_id=str(MODELS / "bert"), **options)


@pytest.fixture
def gpu_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "has_gpu_driver", lambda: True)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PyTorch were not installed."""
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("engines.torch", "ops.torch", "ops.torch_sequences"):
        monkeypatch.delitem(sys.modules, f"text_embeddings_inference.{name}", raising=False)


def test_without_a_gpu_it_is_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "has_gpu_driver", lambda: False)
    assert plan_engine(settings(dtype="float32"), BERT).name == "openvino"


@pytest.mark.usefixtures("gpu_driver")
def test_a_gpu_without_pytorch_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget(monkeypatch)
    with caplog.at_level(logging.INFO):
        assert plan_engine(settings(), BERT).name == "openvino"
    assert "pip install 'text-embeddings-inference[torch]'" in caplog.text


@pytest.mark.parametrize(
    ("options", "numbers", "expected"),
    [
        pytest.param({"threads": 2}, 10_000_000, 2, id="small"),
        pytest.param({"threads": 2}, 85_000_000, 1, id="large"),
        pytest.param({"threads": 16}, 85_000_000, 8, id="large, on many threads"),
        pytest.param({"threads": 2, "streams": 2}, 85_000_000, 2, id="large, and asked for"),
        pytest.param({"threads": 1}, 10_000_000, 1, id="one thread"),
    ],
)
def test_streams(options: dict[str, int], numbers: int, expected: int) -> None:
    plan = plan_engine(settings(engine="openvino", dtype="float32", **options), BERT, numbers)
    assert plan.streams == expected


@needs_torch
@pytest.mark.usefixtures("gpu_driver")
@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cuda", {}, "torch on cuda"),
        ("cpu", {}, "openvino on cpu"),  # a driver whose GPU was not given to this process
        ("cuda", {"engine": "openvino"}, "openvino on cpu"),
        ("cuda", {"dtype": "int8"}, "openvino on cpu"),
    ],
)
def test_auto_takes_the_gpu(
    device: str, options: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from text_embeddings_inference.engines import torch

    monkeypatch.setattr(torch, "choose_device", lambda: device)
    plan = plan_engine(settings(**options), BERT)
    assert f"{plan.name} on {plan.device}" == expected


def test_pytorch_that_was_asked_for_and_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    with pytest.raises(StartError, match=r"`--engine torch`: PyTorch 2\.12 or newer is not installed") as caught:
        plan_engine(settings(engine="torch"), BERT)
    assert "hint: pip install 'text-embeddings-inference[torch]'" in str(caught.value)


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
