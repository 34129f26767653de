from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import write_model

from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import TextRules

NAMES = ["input_ids", "attention_mask"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, TextRules()),
        ({"sentence_bert_config": {"max_seq_length": 32, "do_lower_case": True}}, TextRules(lowercase=True)),
        ({"sentence_roberta_config": {"max_seq_length": 32, "do_lower_case": True}}, TextRules(lowercase=True)),
        ({"sentence_bert_config": {"max_seq_length": 32, "do_lower_case": None}}, TextRules()),
        ({"tokenizer_config": {"do_lower_case": True}}, TextRules()),  # of the tokenizer, which tokenizer.json has
        ({"tokenizer_config": {"model_input_names": NAMES}}, TextRules(token_types=False)),
        ({"tokenizer_config": {"model_input_names": [*NAMES, "token_type_ids"]}}, TextRules()),
        ({"tokenizer_config": {"add_eos_token": True, "eos_token": "</s>"}}, TextRules(last="</s>")),
        ({"tokenizer_config": {"add_bos_token": True, "bos_token": {"content": "<s>"}}}, TextRules(first="<s>")),
        ({"tokenizer_config": {"add_eos_token": False, "eos_token": "</s>"}}, TextRules()),
        ({"tokenizer_config": {"add_eos_token": True, "eos_token": None}}, TextRules()),
    ],
)
def test_rules(tmp_path: Path, files: dict[str, Any], expected: TextRules) -> None:
    assert open_checkpoint(write_model(tmp_path, **files), facts_of).rules == expected


@pytest.mark.parametrize("code", [None, {}, {"AutoModel": "modeling_qwen.Qwen2Model"}])
def test_the_remote_code_of_qwen2_ends_texts(tmp_path: Path, code: dict[str, str] | None) -> None:
    write_model(
        tmp_path, config={"model_type": "qwen2", "auto_map": code}, **{"1_Pooling__config": {"pooling_mode": "mean"}}
    )
    assert open_checkpoint(tmp_path, facts_of).rules.ending == ("<|endoftext|>" if code else "")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("sentence_bert_config", "do_lower_case", "yes"),
        ("sentence_bert_config", "do_lower_case", 1),
        ("tokenizer_config", "model_input_names", "input_ids"),
        ("tokenizer_config", "model_input_names", [1]),
        ("tokenizer_config", "add_eos_token", "true"),
    ],
)
def test_wrong_types_are_named(tmp_path: Path, file: str, key: str, value: Any) -> None:
    write_model(tmp_path, **{file: {"max_seq_length": 32, key: value}})
    with pytest.raises(CheckpointError, match=rf"Failed to parse `{file}\.json` in .*: `{key}` should be"):
        open_checkpoint(tmp_path, facts_of)
