"""The CPU engine beyond its results: what it measures, and compiled models on disk."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from loaded import need_of
from oracle.expected import Fixture
from tests.fakes import until
from text_embeddings_inference.checkpoint import Weights
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.measure import measure
from text_embeddings_inference.engines.openvino import (
    RELEASE_EVERY_S,
    TRIAL_SIZES,
    OpenVINOEngine,
    kept_small,
)
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.types import Output

ENCODINGS = [case.encoding for case in Fixture("bert").cases]


def make(name: str = "bert", *, streams: int = 2, cache: Path | None = None) -> OpenVINOEngine:
    need = need_of(Fixture(name).open(), compile_cache=cache)
    return OpenVINOEngine(need, Offer("openvino", "float32", threads=2, streams=streams))


def run(engine: OpenVINOEngine) -> Output:
    return engine.run(engine.arrange(ENCODINGS), cores=1)


def test_is_measured() -> None:
    engine = make()
    expected = run(engine).pooled
    found = measure(engine, engine.capacity, ("batch_tokens", "streams"), seconds=5)
    assert found.batch_tokens in TRIAL_SIZES
    assert found.streams in (1, 2)
    assert np.abs(run(engine).pooled - expected).max() <= 1e-5
    engine.close()


def test_several_streams_are_measured_in_the_form_that_is_compiled_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    compile_model = OpenVINOEngine._compile

    def slowly(self: OpenVINOEngine, streams: int) -> object:
        if streams > 1:
            time.sleep(0.2)
        compiled.append(streams)
        return compile_model(self, streams)

    monkeypatch.setattr(OpenVINOEngine, "_compile", slowly)
    engine = make()
    engine.prepare(2)
    assert compiled == [1, 2]
    engine.close()


def test_splade_batches_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_embeddings_inference.engines.openvino.SPLADE_BYTES", 4 * 900 * 300)
    engine = make("bert-splade")
    assert (engine.capacity.batch_tokens, engine.trials) == (300, (256,))
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
        make(cache=tmp_path / "file" / "x")


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
