"""What products lose by their format is measured before the first answer, and limited."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from loaded import need_of
from native.kernels import best_kernels, kernels, levels, needs_kernels
from oracle.expected import MODELS, Fixture
from text_embeddings_inference.checkpoint import Checkpoint, open_checkpoint
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.native.formats import EXACT, MOST_LOSS, choose_dtype
from text_embeddings_inference.native.probe import measure_losses
from text_embeddings_inference.types import Encoding

pytestmark = needs_kernels
SAME = 0.9999
"""The smallest cosine that int16 may have with float32."""


def integer_levels() -> list[str]:
    return [level for level in levels() if kernels(level).group("i16")]


def with_outliers(folder: Path, factor: float) -> Checkpoint:
    """The same function as llama's: one channel behind each norm is so much larger, its weights so much smaller."""
    model = shutil.copytree(MODELS / "llama", folder / "outliers")
    tensors = load_file(model / "model.safetensors")
    readers = {
        "input_layernorm": ("self_attn.q", "self_attn.k", "self_attn.v"),
        "post_attention_layernorm": ("mlp.gate", "mlp.up"),
    }
    for layer in (f"model.layers.{i}" for i in range(2)):
        for norm, names in readers.items():
            tensors[f"{layer}.{norm}.weight"][3] *= factor
            for name in names:
                tensors[f"{layer}.{name}_proj.weight"][:, 3] /= factor
    save_file(tensors, model / "model.safetensors")
    return open_checkpoint(model, facts_of)


def engine_of(checkpoint: Checkpoint, level: str, dtype: str) -> NativeEngine:
    return NativeEngine(need_of(checkpoint), Offer("native", dtype, 2, 1), kernels(level))


def vectors(engine: NativeEngine) -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    texts = [Encoding(rng.integers(5, 40, n).astype(np.int32), None, 0) for n in (3, 17, 40, 9, 1, 26)]
    return engine.run(engine.arrange(texts)).pooled.astype(float)


def smallest_cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float((np.sum(x * y, 1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min())


@pytest.mark.parametrize("level", integer_levels())
def test_products_of_outliers_stay_in_float32(
    level: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = with_outliers(tmp_path, 1000)
    exact = engine_of(checkpoint, level, "float32")
    with caplog.at_level(logging.INFO):
        ours = engine_of(checkpoint, level, "int16")
    in_float32 = [format_ == "f32" for format_ in ours.plan.formats.values()]
    assert in_float32 == [True, False, True, True, False] * 2, "queries to values and the gated layers, and no others"
    assert "int16: 4 of 10 products" in caplog.text
    assert "0 (32 -> 64) in float32; 2 (32 -> 64) in float32" in caplog.text
    assert smallest_cosine(vectors(ours), vectors(exact)) >= SAME
    monkeypatch.setitem(MOST_LOSS, "i16", 1e9)
    careless = engine_of(checkpoint, level, "int16")
    assert set(careless.plan.formats.values()) == {"i16"}
    assert smallest_cosine(vectors(careless), vectors(exact)) < SAME, "the model has no outliers that count"
    for engine in (exact, ours, careless):
        engine.close()


@pytest.mark.parametrize("tokens", [16, 96])
@pytest.mark.parametrize("level", integer_levels())
def test_losses_are_the_same_on_any_number_of_threads(
    level: str, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each time: also where a batch of so few tokens would be shared by columns, which overwrite what is added."""
    monkeypatch.setattr("text_embeddings_inference.native.probe.TOKENS", (tokens, tokens))
    engine = engine_of(with_outliers(tmp_path, 1000), level, "int16")
    losses = [measure_losses(engine.plan, kernels(level), threads) for threads in (1, 2, 5, 2, 5)]
    assert losses == [losses[0]] * 5
    assert len(set(losses[0])) > 2
    engine.close()


def test_outliers_of_any_size(tmp_path: Path) -> None:
    level = next(iter(integer_levels()), None)
    if level is None:
        pytest.skip("no level multiplies integers")
    engine = engine_of(with_outliers(tmp_path, 1e30), level, "int16")
    assert next(iter(engine.plan.formats.values())) in EXACT
    engine.close()


def test_without_rounding_nothing_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        engine = NativeEngine(need_of(Fixture("bert").open()), Offer("native", "float32", 1, 1), best_kernels())
    assert "float32: " not in caplog.text
    assert measure_losses(engine.plan, best_kernels()) == [0] * len(engine.plan.formats)
    engine.close()


@pytest.mark.parametrize("level", levels())
def test_what_auto_is(level: str) -> None:
    """bfloat16 where the CPU multiplies in it, else int16, else float32."""
    found = [dtype for dtype, format_ in (("bfloat16", "bf16"), ("int16", "i16")) if kernels(level).group(format_)]
    assert choose_dtype(kernels(level), "auto") == [*found, "float32"][0]


@pytest.mark.parametrize("level", [level for level in levels() if kernels(level).group("i8")])
def test_int8_keeps_what_loses_most_in_16_bits(level: str, tmp_path: Path) -> None:
    checkpoint = with_outliers(tmp_path, 300)
    exact, ours = engine_of(checkpoint, level, "float32"), engine_of(checkpoint, level, "int8")
    better = "bf16" if kernels(level).group("bf16") else "i16"
    assert [format_ == better for format_ in ours.plan.formats.values()] == [True, False, True, True, False] * 2
    assert smallest_cosine(vectors(ours), vectors(exact)) >= 0.98
    for engine in (exact, ours):
        engine.close()
