from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import modules, write_dense, write_json, write_model

from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import LateInteraction, Pooling, TokenColumns

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


LATE = Path(__file__).parents[1] / "fixtures" / "late"


def opened(folder: Path) -> LateInteraction:
    late = open_checkpoint(folder, facts_of).late
    assert late is not None
    return late


def write_multi_vector(folder: Path, settings: dict[str, Any], mask: dict[str, Any]) -> Path:
    entries = modules(("Transformer", ""), ("Dense", "1_Dense"), ("MultiVectorMask", "2_Mask"), ("Normalize", "3"))
    write_dense(folder / "1_Dense", np.ones((3, 2), np.float32), None, module_input_name="token_embeddings")
    return write_model(
        folder,
        modules=entries,
        tokenizer_config={"mask_token": "[MASK]", "model_max_length": 48},
        sentence_bert_config={"transformer_task": "feature-extraction"} | settings,
        **{"2_Mask__config": mask},
    )


def test_formats_are_seen_in_the_files() -> None:
    stanford = opened(LATE / "colbert-stanford")
    assert (stanford.query_prefix, stanford.document_prefix) == ("[unused0]", "[unused1]")
    assert (stanford.query_length, stanford.document_length, len(stanford.skipped)) == (32, 120, 32)
    encoder = opened(LATE / "st-multivector")
    assert (encoder.query_prefix, encoder.query_length, encoder.expansion_length) == ("", 32, 32)
    assert (encoder.skipping, encoder.normalized) == (("document",), True)
    sources = [open_checkpoint(LATE / name, facts_of).sources.late for name in ("colbert-stanford", "st-multivector")]
    assert sources == ["Stanford's ColBERT", "sentence-transformers"]
    assert open_checkpoint(LATE / "edge-colbert", facts_of).sources.late == "PyLate"
    assert open_checkpoint(LATE / "st-token-dense", facts_of).late is None


def test_lengths_of_sentence_transformers(tmp_path: Path) -> None:
    plain = opened(write_multi_vector(tmp_path / "1", {}, {}))
    assert (plain.query_length, plain.document_length, plain.expansion_token) == (48, 48, "")
    assert (plain.skipped, plain.only) == ((), ())
    settings = {"query_length": 20, "document_length": 99, "query_expansion": {"strategy": "min", "length": 12}}
    least = opened(write_multi_vector(tmp_path / "2", settings, {"skiplist_words": ["a"], "skiplist_tasks": "query"}))
    assert (least.query_length, least.expansion_length, least.document_length) == (20, 12, 64)
    assert (least.skipped, least.skipping, least.attend_to_expansion) == (("a",), ("query",), False)
    expansion = {"strategy": "fixed", "length": 12, "attend": True, "token": "[PAD]"}
    fixed = opened(write_multi_vector(tmp_path / "3", {"query_expansion": expansion}, {"keep_only_token_ids": [4]}))
    assert (fixed.query_length, fixed.expansion_token, fixed.attend_to_expansion, fixed.only) == (
        12,
        "[PAD]",
        True,
        (4,),
    )


@pytest.mark.parametrize(
    ("settings", "mask", "problem"),
    [
        ({"query_length": 0}, {}, "`query_length` should be a positive integer, is 0"),
        ({"query_expansion": True}, {}, "`query_expansion` should be an object"),
        ({"query_expansion": {"strategy": "pad"}}, {}, '`strategy` of .* is "pad": not supported'),
        ({"query_expansion": {"strategy": "min", "pad": 1}}, {}, "keys that are not known: pad"),
        ({"query_expansion": {"strategy": "min"}}, {}, r"`query_expansion\.length` should be a positive integer"),
        ({"query_expansion": {"strategy": "min", "length": 8, "attend": 1}}, {}, "true or false"),
        ({"query_expansion": {"strategy": "min", "length": 8, "token": 1}}, {}, "should be a token"),
        ({}, {"skiplist_words": "ab"}, "`skiplist_words` should be a list of strings"),
        ({}, {"skiplist_tasks": [1]}, "`skiplist_tasks` should be a list of strings"),
        ({}, {"keep_only_token_ids": ["a"]}, "`keep_only_token_ids` should be a list of token ids"),
    ],
)
def test_damaged_settings_of_sentence_transformers(
    tmp_path: Path, settings: dict[str, Any], mask: dict[str, Any], problem: str
) -> None:
    with pytest.raises((CheckpointError, UnsupportedError), match=problem):
        open_checkpoint(write_multi_vector(tmp_path, settings, mask), facts_of)


def test_damaged_metadata(tmp_path: Path) -> None:
    write_model(tmp_path, config={"architectures": ["HF_ColBERT"]}, tokenizer_config={"mask_token": "[MASK]"})
    write_json(tmp_path / "artifact.metadata", {"query_maxlen": "long"})
    with pytest.raises(CheckpointError, match=r"`artifact\.metadata` .*`query_maxlen` should be like 32"):
        open_checkpoint(tmp_path, facts_of)
