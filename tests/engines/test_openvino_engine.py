"""The CPU engine beyond its results: what it measures, and compiled models on disk."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from oracle.expected import MODELS, Fixture
from tests.fakes import until
from text_embeddings_inference.checkpoint import Weights, open_checkpoint
from text_embeddings_inference.engines.openvino import (
    RELEASE_EVERY_S,
    SPLADE_ELEMENTS,
    TUNING_SIZES,
    OpenVINOEngine,
    kept_small,
)
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.types import Encoding, Output

ENCODINGS = [case.encoding for case in Fixture("bert").cases]


def make(name: str = "bert", *, streams: int = 2, cache: Path | None = None) -> OpenVINOEngine:
    return OpenVINOEngine(Fixture(name).open(), dtype="float32", threads=2, streams=streams, cache=cache)


def run(engine: OpenVINOEngine) -> Output:
    return engine.run(engine.arrange(ENCODINGS), tokens=False, alone=False)


def test_measures_itself() -> None:
    engine = make()
    expected = run(engine).pooled
    engine.tune_batch_tokens(5)
    engine.tune_streams(5)
    assert engine.batch_tokens in TUNING_SIZES
    assert engine.streams in (1, 2)
    assert np.abs(run(engine).pooled - expected).max() <= 1e-5
    engine.close()


def test_one_stream_is_not_compared_with_itself() -> None:
    engine = make(streams=1)
    engine.tune_streams(5)
    assert engine.streams == 1
    engine.close()


def test_other_batches_end_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    arrange, before = engine.arrange, engine.batch_tokens

    def arrange_while_another_runs(encodings: list[Encoding]) -> object:
        engine.runs += 1
        return arrange(encodings)

    monkeypatch.setattr(engine, "arrange", arrange_while_another_runs)
    with pytest.raises(InterruptedError):
        engine.tune_batch_tokens(5)
    with pytest.raises(InterruptedError):
        engine.tune_streams(5)
    assert (engine.batch_tokens, engine.streams) == (before, 2)
    engine.close()


def test_splade_batches_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_embeddings_inference.engines.openvino.SPLADE_ELEMENTS", 900 * 300)
    engine = make("bert-splade")
    engine.tune_batch_tokens(5)
    assert engine.batch_tokens <= 300 < SPLADE_ELEMENTS
    engine.close()


def test_compiled_models_are_kept(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "folder"
    first = make(cache=cache)
    expected = run(first).pooled
    first.close()
    kept = list(cache.iterdir())
    assert kept
    second = make(cache=cache)
    assert np.array_equal(run(second).pooled, expected)
    second.close()
    assert set(kept) <= set(cache.iterdir())


def test_a_damaged_compiled_model_is_made_anew(tmp_path: Path) -> None:
    first = make(cache=tmp_path)
    expected = run(first).pooled
    first.close()
    for file in tmp_path.iterdir():
        file.chmod(0o600)
        file.write_bytes(file.read_bytes()[:5000])
    second = make(cache=tmp_path)
    assert np.array_equal(run(second).pooled, expected)
    second.close()


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="can't make the folder"):
        OpenVINOEngine(
            open_checkpoint(MODELS / "bert"), dtype="float32", threads=1, streams=1, cache=tmp_path / "file" / "x"
        )


class CountedWeights(Weights):
    """Count how often their memory was given back."""

    def __init__(self) -> None:
        super().__init__((), ())
        self.released = 0

    def release(self) -> None:
        self.released += 1


def test_mapped_weights_are_given_back_while_they_are_read() -> None:
    weights = CountedWeights()
    with kept_small(weights):
        until(lambda: weights.released >= 2)
    found = weights.released
    time.sleep(3 * RELEASE_EVERY_S)
    assert weights.released == found, "nobody reads them any more"


def test_weights_are_given_back_where_compiling_fails() -> None:
    weights = CountedWeights()
    with pytest.raises(ValueError, match="no such kernel"), kept_small(weights):
        raise ValueError("no such kernel")
    assert weights.released == 1
