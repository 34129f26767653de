from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import modules, write_dense, write_json, write_safetensors

from text_embeddings_inference.checkpoint.modules import ModulePaths, read_dense, read_module_paths
from text_embeddings_inference.errors import CheckpointError, UnsupportedError

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1, 2], np.float32)


def paths(folder: Path, *entries: tuple[str, str]) -> ModulePaths:
    write_json(folder / "modules.json", modules(*entries))
    return read_module_paths(folder)


def test_no_file(tmp_path: Path) -> None:
    assert read_module_paths(tmp_path) == ModulePaths()


def test_the_usual_modules(tmp_path: Path) -> None:
    entries = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize")
    assert paths(tmp_path, *entries) == ModulePaths(pooling="1_Pooling", dense=("2_Dense",))


def test_all_spellings_of_types(tmp_path: Path) -> None:
    entries = (
        ("sentence_transformers.base.modules.transformer.Transformer", "0_Transformer"),
        ("sentence_transformers.sentence_transformer.modules.pooling.Pooling", "pool"),
        ("sentence_transformers.models.Dense.Dense", "a"),
        ("sentence_transformers.models.Dropout", "d"),
        ("sentence_transformers.base.modules.dense.Dense", "b"),
        ("sentence_transformers.base.modules.normalize.Normalize", "n"),
    )
    assert paths(tmp_path, *entries) == ModulePaths("0_Transformer", "pool", dense=("a", "b"))


def test_quantizer(tmp_path: Path) -> None:
    entries = ("Transformer", ""), ("Pooling", "1_Pooling"), ("st_quantize.FlexibleQuantizer", "")
    assert paths(tmp_path, *entries) == ModulePaths(pooling="1_Pooling", quantizes=True)


def test_modules_of_tokens(tmp_path: Path) -> None:
    pooled = ("Transformer", ""), ("Dense", "1_Dense"), ("Pooling", "2_Pooling"), ("Dense", "3_Dense")
    found = ModulePaths(pooling="2_Pooling", token_dense=("1_Dense",), dense=("3_Dense",))
    assert paths(tmp_path, *pooled) == found
    late = ("Transformer", ""), ("Dense", "a"), ("Dense", "b"), ("MultiVectorMask", "m"), ("Normalize", "n")
    found = ModulePaths(token_dense=("a", "b"), late=True, mask="m", normalizes_tokens=True)
    assert paths(tmp_path, *late) == found
    assert found.all_dense == ("a", "b")
    assert paths(tmp_path, ("Transformer", ""), ("Dense", "a")).replace_dense("c").token_dense == ("c",)


def test_splade_modules(models: Path) -> None:
    assert read_module_paths(models / "distilbert-splade") == ModulePaths(splade="1_SpladePooling")


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (
            [("Transformer", ""), ("LSTM", "1_LSTM")],
            r"models\.LSTM \(path `1_LSTM`\) is not supported after Transformer",
        ),
        ([("WordEmbeddings", "0")], r"models\.WordEmbeddings \(path `0`\) is not supported as the first module"),
        ([("Transformer", ""), ("Normalize", "n")], "is not supported after Transformer"),
        ([("Transformer", ""), ("MultiVectorMask", "m"), ("Pooling", "p")], "is not supported after MultiVectorMask"),
        ([("Transformer", ""), ("Transformer", "b")], "is not supported after Transformer"),
        ([("Transformer", ""), ("Pooling", "p"), ("Normalize", "n"), ("Dense", "d")], "not supported after Normalize"),
    ],
)
def test_unsupported_modules_are_named(tmp_path: Path, entries: list[tuple[str, str]], problem: str) -> None:
    with pytest.raises(UnsupportedError, match=problem):
        paths(tmp_path, *entries)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[", r"Failed to parse `modules\.json`"),
        ({}, "expected a list"),
        ([], "lists no Transformer"),
        ([1], "no `path` and `type` in 1"),
        ([{"type": "x.Transformer"}], "no `path` and `type`"),
        (modules(("Transformer", "../other")), r"path `\.\./other` is outside of the checkpoint"),
        (modules(("Transformer", "/other")), "path `/other` is outside of the checkpoint"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: Any, problem: str) -> None:
    write_json(tmp_path / "modules.json", content)
    with pytest.raises(CheckpointError, match=problem):
        read_module_paths(tmp_path)


def test_another_dense_folder() -> None:
    one, two = ModulePaths(dense=("a",)), ModulePaths(dense=("a", "b"))
    assert one.replace_dense("c").dense == ("c",)
    assert one.replace_dense(None).dense == ("a",)
    assert two.replace_dense("c").dense == ("a", "b")
    assert ModulePaths().replace_dense("c").dense == ()


def test_dense_of_the_fixture(models: Path) -> None:
    dense = read_dense(models / "bert-dense", "2_Dense")
    assert (dense.inputs, dense.outputs, dense.has_bias, dense.activation) == (32, 24, True, "tanh")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("torch.nn.modules.activation.Tanh", "tanh"),
        ("torch.nn.modules.linear.Identity", "identity"),
        ("torch.nn.modules.activation.ReLU", "relu"),
        ("torch.nn.modules.activation.GELU", "gelu"),
        ("torch.nn.modules.activation.SiLU", "silu"),
        ("torch.nn.Sigmoid", "sigmoid"),
        (None, "identity"),
    ],
)
def test_activations(tmp_path: Path, function: str | None, expected: str) -> None:
    write_dense(tmp_path / "d", WEIGHT, BIAS, activation_function=function)
    assert read_dense(tmp_path, "d").activation == expected


def test_no_activation_and_no_bias(tmp_path: Path) -> None:
    write_dense(tmp_path / "d", WEIGHT, None)
    dense = read_dense(tmp_path, "d")
    assert (dense.has_bias, dense.activation) == (False, "identity")
    np.testing.assert_array_equal(dense.weights.array("linear.weight"), WEIGHT)


@pytest.mark.parametrize(
    "config",
    [
        {"activation_function": "torch.nn.modules.activation.Softmax"},
        {"activation_function": "os.Tanh"},
        {"activation_function": "Tanh"},
        {"activation_function": 3},
        {"module_input_name": "token_embeddings"},
        {"module_output_name": "other"},
    ],
)
def test_unsupported_settings_are_named(tmp_path: Path, config: dict[str, Any]) -> None:
    write_dense(tmp_path / "d", WEIGHT, BIAS, **config)
    with pytest.raises(UnsupportedError, match=rf"`{next(iter(config))}` of `d/config\.json` .* is "):
        read_dense(tmp_path, "d")


def test_a_residual(tmp_path: Path) -> None:
    write_dense(tmp_path / "d", WEIGHT[:, :2], BIAS, use_residual=True)
    assert read_dense(tmp_path, "d").has_residual
    write_dense(tmp_path / "d", WEIGHT, None, use_residual=True)
    with pytest.raises(CheckpointError, match=r"should hold linear\.weight, residual\.weight; it holds linear"):
        read_dense(tmp_path, "d")
    write_safetensors(
        tmp_path / "d" / "model.safetensors", {"linear.weight": WEIGHT, "residual.weight": WEIGHT.T.copy()}
    )
    with pytest.raises(CheckpointError, match=r"`residual\.weight` has shape \(3, 2\)"):
        read_dense(tmp_path, "d")


def test_names_of_what_a_module_on_tokens_takes(tmp_path: Path) -> None:
    for name in (None, "token_embeddings", "sentence_embedding"):
        write_dense(tmp_path / "d", WEIGHT, BIAS, module_input_name=name, module_output_name=name)
        assert read_dense(tmp_path, "d", on_tokens=True).inputs == 3
    write_dense(tmp_path / "d", WEIGHT, BIAS, module_output_name="other")
    with pytest.raises(UnsupportedError, match="`module_output_name`"):
        read_dense(tmp_path, "d", on_tokens=True)


def test_settings_with_their_usual_value(tmp_path: Path) -> None:
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    write_dense(tmp_path / "d", WEIGHT, BIAS, use_residual=False, **names)
    assert read_dense(tmp_path, "d").inputs == 3


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"in_features": None}, "`in_features` and `out_features` should be positive integers, are None and 2"),
        ({"bias": "no"}, '`bias` should be true or false, is "no"'),
        ({"in_features": 4}, r"`linear\.weight` has shape \(2, 3\), `d/config\.json` says \(2, 4\)"),
        ({"bias": False}, r"should hold linear\.weight; it holds linear\.weight, linear\.bias"),
    ],
)
def test_broken_dense_is_named(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    write_dense(tmp_path / "d", WEIGHT, BIAS, **config)
    with pytest.raises(CheckpointError, match=problem):
        read_dense(tmp_path, "d")


def test_missing_dense_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`d/config\.json` not found"):
        read_dense(tmp_path, "d")
    write_dense(tmp_path / "d", WEIGHT, BIAS)
    write_safetensors(tmp_path / "d" / "model.safetensors", {"linear.weight": WEIGHT})
    with pytest.raises(CheckpointError, match=r"should hold linear\.weight, linear\.bias; it holds linear\.weight"):
        read_dense(tmp_path, "d")
    (tmp_path / "d" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"looked for `model\.safetensors`, `pytorch_model\.bin`"):
        read_dense(tmp_path, "d")
