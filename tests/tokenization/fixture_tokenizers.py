"""Tokenizers for tests: those of the fixture checkpoints, and one that is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from text_embeddings_inference.checkpoint.text_rules import read_text_rules
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.tokenization import TextOptions, Tokenizer

MODELS = Path(__file__).parents[1] / "fixtures" / "models"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def load(name: str = "bert", **changes: Any) -> Tokenizer:
    config = read(MODELS / name / "config.json")
    expected = read(MODELS / name / "expected.json")
    arguments = {
        "max_input_length": expected["max_input_length"],
        "prompts": expected.get("prompts"),
        "vocabulary": config["vocab_size"],
        "rules": read_text_rules(MODELS / name, facts_of(config["model_type"], config).end_of_text),
    }
    return Tokenizer.load(MODELS / name / "tokenizer.json", TextOptions(**(arguments | changes)))


def words(vocabulary: dict[str, int], unknown: str = "[UNK]") -> tokenizers.Tokenizer:
    """A tokenizer of whole words without special tokens."""
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
