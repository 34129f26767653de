"""How far an engine's vectors are from float32's, and what is said about it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.oracle.expected import MODELS, Fixture
from text_embeddings_inference.engines.base import Capacity, Engine, Need, Offer
from text_embeddings_inference.engines.openvino_kind import OpenVINOKind
from text_embeddings_inference.loading.fidelity import FAITHFUL, fidelity
from text_embeddings_inference.loading.load import fits_twice, load_parts, measure_fidelity
from text_embeddings_inference.loading.open import open_model
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.tokenization import TextOptions, Tokenizer
from text_embeddings_inference.types import Batch, Encoding, Kind, Output

TOKENIZER_FILE = MODELS / "bert" / "tokenizer.json"


class Turned:
    """Gives `(1, 0)` for each input but the last, which is turned by `angle`, or all of it divided by `shrink`."""

    dimensions, vocabulary, longest, cores = 2, 900, 48, 1
    capacity = Capacity(1, 1024)
    trials: tuple[int, ...] = ()

    def __init__(self, angle: float = 0, shrink: float = 1) -> None:
        self._last = np.array([np.cos(angle), np.sin(angle)], np.float32)
        self._shrink = shrink

    def arrange(self, encodings: list[Encoding]) -> Batch:
        return Batch.pad(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return longest * count

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        pooled = np.tile(np.array([[1, 0]], np.float32), (len(batch.lengths), 1))
        pooled[-1] = self._last
        return Output(pooled / np.float32(self._shrink), None)

    def prepare(self, streams: int) -> None:
        """There is one."""

    def close(self) -> None:
        """There is nothing to give back."""


def tokenizer() -> Tokenizer:
    return Tokenizer.load(TOKENIZER_FILE, TextOptions(max_input_length=48, vocabulary=900))


def test_the_worst_vector_counts() -> None:
    engine: Engine = Turned(0.3, shrink=7)
    assert fidelity(engine, Turned(), tokenizer(), Kind.EMBEDDING) == pytest.approx(np.cos(0.3), abs=1e-6)


def test_logits_count_together() -> None:
    """One of twelve texts is turned: the others keep the cosine high, where alone it would be cos(1)."""
    found = fidelity(Turned(1.0), Turned(), tokenizer(), Kind.RERANKER)
    assert found == pytest.approx((11 + np.cos(1)) / 12, abs=1e-6)


@pytest.mark.parametrize(("angle", "level"), [(0.01, logging.INFO), (0.5, logging.WARNING)])
def test_what_is_too_far_is_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, angle: float, level: int
) -> None:
    settings = Settings.of(model_id=str(MODELS / "bert"), dtype="int8", threads=1)
    parts = load_parts(open_model(settings))
    assert parts.measure_fidelity is not None
    try:
        with caplog.at_level(logging.INFO):
            assert parts.measure_fidelity() >= FAITHFUL  # the real thing
            monkeypatch.setattr("text_embeddings_inference.loading.load.fidelity", lambda *_: np.cos(angle))
            parts.measure_fidelity()
    finally:
        parts.engine.close()
    assert caplog.records[-1].levelno == level
    assert "smallest cosine with float32" in caplog.text


@pytest.mark.parametrize(("cosine", "warned"), [(0.99995, False), (0.9998, True)])
def test_int16_promises_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, cosine: float, warned: bool
) -> None:
    monkeypatch.setattr("text_embeddings_inference.loading.load.fidelity", lambda *_: cosine)
    opened = open_model(Settings.of(model_id=str(MODELS / "bert"), dtype="float32", threads=1))
    measure_fidelity(replace(opened, offer=replace(opened.offer, dtype="int16")), tokenizer())
    opened.engine.close()
    assert ("int16: that is less than 0.9999" in caplog.text) == warned


@pytest.mark.parametrize(("free", "fits"), [(None, True), (1 << 40, True), (1 << 17, False)])
def test_no_second_model_where_memory_is_short(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, free: int | None, fits: bool
) -> None:
    monkeypatch.setattr("text_embeddings_inference.loading.load.available_memory", lambda: free)
    assert fits_twice(Fixture("bert").open()) == fits
    assert ("is not measured" in caplog.text) != fits


def test_a_warning_about_the_weights_comes_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However many engines are made of them."""
    model = shutil.copytree(MODELS / "bert", tmp_path / "bert")
    save_file(
        load_file(model / "model.safetensors") | {"logit_scale": np.ones(1, np.float32)}, model / "model.safetensors"
    )
    opened = open_model(Settings.of(model_id=str(model), dtype="int8", threads=1))
    parts = load_parts(opened)
    assert parts.measure_fidelity is not None
    parts.measure_fidelity()
    other = opened.another_engine()
    for engine in (parts.engine, other):
        engine.close()
    assert caplog.text.count("no part of the model: `logit_scale`") == 1


def test_float32_is_compared_with_nothing() -> None:
    with open_model(Settings.of(model_id=str(MODELS / "bert"), dtype="float32", threads=1)) as opened:
        parts = load_parts(opened)
        assert parts.measure_fidelity is None
        parts.engine.close()


def test_the_reference_is_closed_where_the_comparison_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("no such kernel")

    references: list[Engine] = []
    closed: list[Engine] = []
    make = OpenVINOKind.make

    def keep(self: OpenVINOKind, need: Need, offer: Offer) -> Engine:
        assert offer.dtype == "float32"
        references.append(make(self, need, offer))
        close = references[-1].close
        references[-1].close = lambda: (close(), closed.append(references[-1]))[0]  # type: ignore[method-assign, func-returns-value]
        return references[-1]

    monkeypatch.setattr("text_embeddings_inference.loading.load.fidelity", fail)
    settings = Settings.of(model_id=str(MODELS / "bert"), engine="openvino", dtype="int8", threads=1)
    parts = load_parts(open_model(settings))
    monkeypatch.setattr(OpenVINOKind, "make", keep)
    assert parts.measure_fidelity is not None
    with pytest.raises(RuntimeError, match="no such kernel"):
        parts.measure_fidelity()
    parts.engine.close()
    assert references
    assert closed == references
