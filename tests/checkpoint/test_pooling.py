from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import write_json

from text_embeddings_inference.checkpoint.modules import ModulePaths
from text_embeddings_inference.checkpoint.pooling import read_pooling, read_splade
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.types import Pooling

FLAGS = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST_TOKEN,
}


def pooling(folder: Path, content: Any, *, path: str | None = None, model_type: str = "bert") -> Pooling:
    write_json(folder / (path or "1_Pooling") / "config.json", content)
    return read_pooling(folder, ModulePaths(pooling=path), model_type).value


@pytest.mark.parametrize("key", FLAGS)
def test_flags(tmp_path: Path, key: str) -> None:
    assert pooling(tmp_path, {"word_embedding_dimension": 8} | {k: k == key for k in FLAGS}) is FLAGS[key]
    assert pooling(tmp_path, {key: True}) is FLAGS[key]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cls", Pooling.CLS),
        ("mean", Pooling.MEAN),
        ("max", Pooling.MAX),
        ("mean_sqrt_len_tokens", Pooling.MEAN_SQRT_LEN),
        ("weightedmean", Pooling.WEIGHTED_MEAN),
        ("lasttoken", Pooling.LAST_TOKEN),
        (["mean"], Pooling.MEAN),
    ],
)
def test_names(tmp_path: Path, name: Any, expected: Pooling) -> None:
    assert pooling(tmp_path, {"embedding_dimension": 8, "pooling_mode": name}) is expected


def test_several_modes_are_named(tmp_path: Path) -> None:
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    with pytest.raises(UnsupportedError, match=r"several modes at once \(cls, mean\)"):
        pooling(tmp_path, flags)
    with pytest.raises(UnsupportedError, match=r"several modes at once \(max, mean\)"):
        pooling(tmp_path, {"pooling_mode": ["max", "mean"]})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"pooling_mode_mean_tokens": False}, r"`1_Pooling/config\.json` .* is not supported: no mode is set"),
        ({}, "no mode is set"),
        ({"pooling_mode": []}, "no mode is set"),
        ({"pooling_mode_mean_tokens": "yes"}, '`pooling_mode_mean_tokens` should be true or false, is "yes"'),
        ("{", r"Failed to parse `1_Pooling/config\.json`"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        pooling(tmp_path, content)


@pytest.mark.parametrize("value", ["attention", 3, None, {"a": 1}, [["mean"]]])
def test_unknown_names(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UnsupportedError, match="`pooling_mode` is"):
        pooling(tmp_path, {"pooling_mode": value})


def test_the_path_of_modules_json_counts(tmp_path: Path) -> None:
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    assert pooling(tmp_path, {"pooling_mode": "mean"}, path="2_Pool") is Pooling.MEAN


def test_a_listed_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`1_Pooling/config\.json` not found"):
        read_pooling(tmp_path, ModulePaths(pooling="1_Pooling"), "bert")


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "ModernBERT", "nomic_bert"])
def test_bert_like_models_fall_back_to_cls(tmp_path: Path, model_type: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read_pooling(tmp_path, ModulePaths(), model_type).value is Pooling.CLS
    assert "No pooling configuration (`1_Pooling/config.json`) found: using `cls`" in caplog.text
    assert "splade" not in caplog.text


def test_splade_modules_need_no_option(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read_pooling(tmp_path, ModulePaths(splade="1_SpladePooling"), "distilbert")
    assert found == (Pooling.SPLADE, "1_SpladePooling/config.json")
    assert not caplog.text


@pytest.mark.parametrize("model_type", ["qwen3", "mistral", "mpnet", "t5"])
def test_other_models_need_to_be_told(tmp_path: Path, model_type: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_pooling(tmp_path, ModulePaths(), model_type)
    assert str(caught.value).startswith(
        "The `--pooling` arg is not set and we could not find a pooling configuration (`1_Pooling/config.json`) "
        "for this model.\nhint: "
    )


def test_prompts_can_not_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pooling(tmp_path, {"pooling_mode": "mean", "include_prompt": False})
    assert "`include_prompt` of `1_Pooling/config.json` is false" in caplog.text


def test_splade_variants(tmp_path: Path) -> None:
    modules = ModulePaths(splade="s")
    assert read_splade(tmp_path, ModulePaths()) is Pooling.SPLADE
    for strategy, activation, form in (
        ("max", "relu", Pooling.SPLADE),
        ("max", "log1p_relu", Pooling.SPLADE_LOG1P),
        ("sum", "relu", Pooling.SPLADE_SUM),
        ("sum", "log1p_relu", Pooling.SPLADE_SUM_LOG1P),
    ):
        write_json(tmp_path / "s" / "config.json", {"pooling_strategy": strategy, "activation_function": activation})
        assert read_splade(tmp_path, modules) is form
    write_json(tmp_path / "s" / "config.json", {"pooling_strategy": "mean"})
    with pytest.raises(UnsupportedError, match=r'`pooling_strategy` of `s/config\.json` in .* is "mean"'):
        read_splade(tmp_path, modules)
