"""What is asked of an architecture from outside its file."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from edited import edit

from oracle.expected import MODELS
from text_embeddings_inference.checkpoint import Facts, open_checkpoint
from text_embeddings_inference.models import MODEL_TYPES, REMOTE_CODE, SPELLINGS, architectures, choose
from text_embeddings_inference.models.architecture import Architecture
from text_embeddings_inference.models.build import facts_of

FILES = sorted({*architectures().values(), *REMOTE_CODE.values(), *SPELLINGS.values()})


def facts(name: str, **changes: Any) -> Facts:
    """Of a fixture, with keys of its config.json changed."""
    config = json.loads((MODELS / name / "config.json").read_text()) | changes
    return facts_of(config["model_type"], config)


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is(name: str) -> None:
    module = import_module(f"text_embeddings_inference.models.{name}")
    assert isinstance(module.ARCHITECTURE, Architecture)


def test_positions_have_no_default() -> None:
    """Whoever forgets a table would get vectors of positions there are not."""
    [field] = [field for field in fields(Architecture) if field.name == "positions"]
    assert field.default is MISSING
    assert field.default_factory is MISSING


def test_files_are_found_by_name() -> None:
    assert {*MODEL_TYPES} < {*FILES}
    for model_type in ("build", "architecture", "jina_bert", "../models", "roberta.py", ""):
        assert choose(model_type, {}) is None


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("bert", {}, 0),
        ("bert", {"pad_token_id": 1}, 0),
        ("distilbert", {"pad_token_id": 1}, 0),
        ("roberta", {"pad_token_id": 1}, 2),
        ("roberta", {"pad_token_id": 0}, 1),
        ("xlm-roberta", {"pad_token_id": 1}, 2),
        ("mpnet", {"pad_token_id": 7}, 2),
        ("deberta-v2-reranker", {"position_biased_input": False}, None),
        ("deberta-v2-reranker", {"position_biased_input": True}, 0),
        ("qwen3", {}, None),
        ("t5-encoder", {}, None),
        ("jina-bert", {}, None),
        ("modernbert", {}, None),
        ("bert", {"model_type": "unheard-of", "pad_token_id": 0}, 0),
        ("bert", {"model_type": "unheard-of", "pad_token_id": 1}, 2),
        ("qwen3", {"rope_scaling": 3}, 0),
    ],
)
def test_first_position(name: str, changes: dict[str, Any], expected: int | None) -> None:
    """None: no table. One that we have no file for, or whose config we can't read, may have a table."""
    assert facts(name, **changes).first_position == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("bert", False), ("t5-encoder", True), ("gemma3_text", True), ("qwen3", False)]
)
def test_float16_is_too_small(name: str, expected: bool) -> None:
    assert facts(name).overflows_float16 is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}, "<|endoftext|>"),
        ({"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}, "model_type": "qwen3"}, ""),
    ],
)
def test_remote_code_of_qwen2_ends_texts(changes: dict[str, Any], expected: str) -> None:
    assert facts("qwen2", **({"auto_map": None} | changes)).end_of_text == expected


def test_a_table_that_we_do_not_know_limits_the_length(tmp_path: Path) -> None:
    folder = edit(tmp_path, "bert", config={"model_type": "unheard-of", "max_position_embeddings": 32})
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 48}')
    assert open_checkpoint(folder, facts_of).max_input_length == 32
