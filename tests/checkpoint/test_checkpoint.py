from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import modules, write_dense, write_json, write_model

from text_embeddings_inference.checkpoint import Request, examine_checkpoint, open_checkpoint
from text_embeddings_inference.checkpoint.findings import READERS, Findings
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Kind, Pooling

FIXTURES = sorted(path.name for path in (Path(__file__).parent.parent / "fixtures" / "models").iterdir())
KINDS = {"classification": Kind.CLASSIFIER, "reranker": Kind.RERANKER}


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_open_as_expected(models: Path, name: str) -> None:
    expected = json.loads((models / name / "expected.json").read_text())
    splade = expected["task"] == "splade"
    checkpoint = open_checkpoint(models / name, facts_of, pooling=Pooling.SPLADE if splade else None)
    assert checkpoint.kind is KINDS.get(expected["task"], Kind.EMBEDDING)
    unpooled = Pooling.CLS if checkpoint.late is not None else None  # what text-embeddings-inference says of it
    assert checkpoint.pooling == ("splade" if splade else expected.get("pooling") or unpooled)
    assert checkpoint.max_input_length == expected["max_input_length"]
    assert (checkpoint.prompts or {}) == (expected.get("prompts") or {})
    assert len(checkpoint.dense) == len(expected.get("dense_modules") or [])
    assert len(checkpoint.token_dense) == (checkpoint.late is not None)
    assert checkpoint.tokenizer_file == models / name / "tokenizer.json"
    assert len(checkpoint.weights) > 0


def test_a_classifier(models: Path) -> None:
    checkpoint = open_checkpoint(models / "bert-multilabel", facts_of)
    assert checkpoint.labels == ("toxic", "obscene", "threat", "insult", "other")
    assert checkpoint.label_ids["insult"] == 3
    assert (checkpoint.model_type, checkpoint.architectures) == ("bert", ("BertForSequenceClassification",))
    assert checkpoint.config["problem_type"] == "multi_label_classification"


def test_pooling_is_ignored_for_classifiers(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_checkpoint(models / "bert-reranker", facts_of, pooling=Pooling.MEAN).pooling is None
    assert "`--pooling` is ignored: the model is a reranker" in caplog.text


def test_pooling_option_wins(models: Path) -> None:
    assert open_checkpoint(models / "bert", facts_of, pooling=Pooling.LAST_TOKEN).pooling is Pooling.LAST_TOKEN


def test_pooling_option_replaces_a_missing_or_broken_file(tmp_path: Path) -> None:
    files: dict[str, Any] = {"1_Pooling__config": "{", "modules": modules(("Transformer", ""), ("Pooling", "x"))}
    write_model(tmp_path, **files)
    assert open_checkpoint(tmp_path, facts_of, pooling=Pooling.MEAN).pooling is Pooling.MEAN


def test_splade_variants_are_checked(models: Path, tmp_path: Path) -> None:
    types = "sentence_transformers.sparse_encoder.models."
    entries = modules((types + "MLMTransformer", ""), (types + "SpladePooling", "1"))
    files: dict[str, Any] = {"1__config": {"pooling_strategy": "mean"}, "modules": entries}
    write_model(tmp_path, config={"architectures": ["BertForMaskedLM"]}, **files)
    for option in (Pooling.SPLADE, None):
        with pytest.raises(UnsupportedError, match="pooling_strategy"):
            open_checkpoint(tmp_path, facts_of, pooling=option)
    assert open_checkpoint(tmp_path, facts_of, pooling=Pooling.CLS).pooling is Pooling.CLS


def test_dense_path(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    dense = open_checkpoint(models / "bert-dense", facts_of, dense_path="2_Dense_16").dense
    assert [(module.outputs, module.inputs) for module in dense] == [(16, 32)]
    assert caplog.text.count("--dense-path") == 0
    assert open_checkpoint(models / "bert", facts_of, dense_path="2_Dense_16").dense == ()
    assert "`--dense-path` is ignored: the model has 0 Dense modules, not one" in caplog.text


def test_dense_path_that_is_not_there(models: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`3_Dense/config\.json` not found"):
        open_checkpoint(models / "bert-dense", facts_of, dense_path="3_Dense")


def test_dense_modules_must_fit_each_other(tmp_path: Path) -> None:
    entries = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2"), ("Dense", "3")
    write_model(tmp_path, modules=modules(*entries), **{"1_Pooling__config": {"pooling_mode": "mean"}})
    write_dense(tmp_path / "2", np.ones((4, 2), np.float32), None)
    write_dense(tmp_path / "3", np.ones((2, 4), np.float32), None)
    assert [(module.outputs, module.inputs) for module in open_checkpoint(tmp_path, facts_of).dense] == [(4, 2), (2, 4)]
    write_dense(tmp_path / "3", np.ones((2, 5), np.float32), None)
    with pytest.raises(CheckpointError, match=r"Dense module `3` in .* takes 5 values, the one before it gives 4"):
        open_checkpoint(tmp_path, facts_of)


def test_a_quantizer_belongs_to_its_architecture(models: Path, tmp_path: Path) -> None:
    entries = modules(("Transformer", ""), ("Pooling", "1_Pooling"), ("st_quantize.FlexibleQuantizer", ""))
    for name in ("pplx1", "qwen3"):
        shutil.copytree(models / name, tmp_path / name)
        write_json(tmp_path / name / "modules.json", entries)
    assert open_checkpoint(tmp_path / "pplx1", facts_of).pooling is Pooling.MEAN
    with pytest.raises(UnsupportedError, match="FlexibleQuantizer is not supported for `model_type` 'qwen3'"):
        open_checkpoint(tmp_path / "qwen3", facts_of)


def test_a_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write_model(tmp_path / "0_Transformer", sentence_bert_config={"max_seq_length": 32})
    write_json(tmp_path / "modules.json", modules(("Transformer", "0_Transformer"), ("Pooling", "1_Pooling")))
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    checkpoint = open_checkpoint(tmp_path, facts_of)
    assert checkpoint.pooling is Pooling.MEAN
    assert checkpoint.max_input_length == 32
    assert checkpoint.prompts == {"query": "q: "}
    assert checkpoint.tokenizer_file == tmp_path / "0_Transformer" / "tokenizer.json"
    assert checkpoint.weights.names() == ("w",)


@pytest.mark.parametrize("content", [{}, {"prompts": None}])
def test_no_prompts(tmp_path: Path, content: dict[str, Any]) -> None:
    assert open_checkpoint(write_model(tmp_path, config_sentence_transformers=content), facts_of).prompts is None


@pytest.mark.parametrize("prompts", [["a"], {"a": 1}, {"a": None}, "a", []])
def test_broken_prompts_are_named(tmp_path: Path, prompts: Any) -> None:
    write_model(tmp_path, config_sentence_transformers={"prompts": prompts})
    with pytest.raises(CheckpointError, match=r"Failed to parse `config_sentence_transformers\.json`.*`prompts`"):
        open_checkpoint(tmp_path, facts_of)


def test_a_default_prompt_of_the_model_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    open_checkpoint(write_model(tmp_path, config_sentence_transformers=content), facts_of)
    assert "used only with `--default-prompt-name`" in caplog.text


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights in"):
        open_checkpoint(tmp_path, facts_of)
    (tmp_path / "tokenizer.json").unlink()
    text = r"tokenizer\.json not found\. text-embeddings-inference only supports fast tokenizers"
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(tmp_path, facts_of)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"`config\.json` not found"):
        open_checkpoint(tmp_path, facts_of)


def test_an_examination_gathers_every_problem(tmp_path: Path) -> None:
    write_model(tmp_path, modules=modules(("Transformer", ""), ("LSTM", "1")), config_sentence_transformers="[]")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"x")
    found = examine_checkpoint(Request(tmp_path, facts_of))
    texts = {
        "modules": "LSTM",
        "check tokenizer": "tokenizer.json not found",
        "prompts": "expected an object",
        "model": "cut off",
    }
    assert found.problems.keys() == texts.keys()
    assert all(text in str(found.problems[name]) for name, text in texts.items())
    checkpoint = found.checkpoint()
    assert (checkpoint.pooling, checkpoint.max_input_length) == (Pooling.CLS, 64)
    assert checkpoint.sources.pooling == "the rule for models without a pooling configuration (`1_Pooling/config.json`)"


def test_without_a_config_nothing_else_is_examined(tmp_path: Path) -> None:
    assert list(examine_checkpoint(Request(tmp_path, facts_of)).problems) == ["config"]


def test_every_reader_fills_a_field(tmp_path: Path) -> None:
    """Or is a check, whose name says so."""
    fields = {declared.name for declared in dataclasses.fields(Findings)} - {"request", "problems"}
    assert {name for name in READERS if not name.startswith("check ")} == fields
