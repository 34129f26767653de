from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import modules, write_dense, write_json, write_model

from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Pooling, TokenColumns

MODULES = modules(("Transformer", ""), ("pylate.models.Dense.Dense", "1_Dense"))


def write(folder: Path, tokenizer: Any = None, /, **settings: Any) -> Path:
    tokenizer = {"mask_token": "[MASK]"} if tokenizer is None else tokenizer
    write_dense(folder / "1_Dense", np.ones((3, 2), np.float32), None)
    return write_model(folder, modules=MODULES, tokenizer_config=tokenizer, config_sentence_transformers=settings)


def test_the_fixture(models: Path) -> None:
    checkpoint = open_checkpoint(models / "colbert", facts_of)
    late = checkpoint.late
    assert late is not None
    assert (late.query_prefix, late.document_prefix) == ("[Q] ", "[D] ")
    assert (late.query_length, late.document_length, late.expansion_token) == (20, 40, "[MASK]")
    assert not late.attend_to_expansion
    assert len(late.skipped) == 32
    assert checkpoint.columns == TokenColumns(vectors=128, hidden=False)
    assert (checkpoint.max_input_length, checkpoint.longest) == (39, 40)


def test_defaults_are_those_of_pylate(tmp_path: Path) -> None:
    late = open_checkpoint(write(tmp_path, query_prefix=None), facts_of).late
    assert late is not None
    assert (late.query_prefix, late.document_prefix) == ("[Q] ", "[D] ")
    assert (late.query_length, late.expansion_token, late.attend_to_expansion) == (32, "[MASK]", False)
    assert late.document_length == 64, "lowered from 180 to the positions there are"
    assert set(late.skipped) == set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def test_queries_that_are_not_filled_up(tmp_path: Path) -> None:
    late = open_checkpoint(write(tmp_path, {}, do_query_expansion=False), facts_of).late
    assert late is not None
    assert late.expansion_token == ""


@pytest.mark.parametrize(
    ("tokenizer", "token"),
    [
        ({"mask_token": {"content": "<mask>"}, "eos_token": "</s>"}, "<mask>"),
        ({"mask_token": None, "eos_token": "</s>", "pad_token": "<pad>"}, "</s>"),
        ({"pad_token": "<pad>"}, "<pad>"),
    ],
)
def test_token_that_fills_queries_up(tmp_path: Path, tokenizer: dict[str, Any], token: str) -> None:
    late = open_checkpoint(write(tmp_path, tokenizer), facts_of).late
    assert late is not None
    assert late.expansion_token == token


def test_no_token_to_fill_queries_up(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="names no mask token"):
        open_checkpoint(write(tmp_path, {}), facts_of)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("query_prefix", 1),
        ("query_length", 0),
        ("document_length", "long"),
        ("do_query_expansion", 1),
        ("skiplist_words", "!"),
        ("skiplist_words", [1]),
    ],
)
def test_damaged_settings(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"`{key}` should be like .*, is "):
        open_checkpoint(write(tmp_path, **{key: value}), facts_of)


def test_tokens_are_not_projected_after_pooling(tmp_path: Path) -> None:
    write(tmp_path)
    entries = modules(("Transformer", ""), ("Pooling", "1_Pooling"), ("pylate.models.Dense.Dense", "1_Dense"))
    write_json(tmp_path / "modules.json", entries)
    with pytest.raises(UnsupportedError, match="is not supported after Pooling"):
        open_checkpoint(tmp_path, facts_of)


def test_pooling_is_ignored(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_checkpoint(models / "colbert", facts_of, pooling=Pooling.MEAN).pooling is Pooling.CLS
    assert "`--pooling` is ignored" in caplog.text


def test_heads_for_tokens(models: Path) -> None:
    checkpoint = open_checkpoint(models / "bge-m3", facts_of)
    assert checkpoint.late is None
    assert checkpoint.lexical is not None
    assert (checkpoint.lexical.outputs, checkpoint.lexical.inputs) == (1, 32)
    assert checkpoint.columns == TokenColumns(weights=True, vectors=32, first=1)
    assert open_checkpoint(models / "bert", facts_of).columns == TokenColumns()


def test_a_head_that_is_none(models: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "sparse_linear.pt").write_bytes((models / "bert-cls" / "pytorch_model.bin").read_bytes())
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt should hold `weight` and `bias`"):
        open_checkpoint(folder, facts_of)
