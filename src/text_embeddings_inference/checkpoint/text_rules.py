"""What is said of texts outside of tokenizer.json: in tokenizer_config.json, by sentence-transformers and the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..types import TextRules
from .config import SENTENCE_FILES
from .json_files import describe, read_optional_object

TOKENIZER_CONFIG = "tokenizer_config.json"


def read_text_rules(root: Path, ending: str) -> TextRules:
    """The rules for texts of the Transformer in `root`. Raises `CheckpointError` for a value of a wrong type.

    ending: `Facts.end_of_text`.
    """
    name = next((name for name in SENTENCE_FILES if (root / name).exists()), SENTENCE_FILES[0])
    sentence = read_optional_object(root, name) or {}
    stored = read_optional_object(root, TOKENIZER_CONFIG) or {}
    names = stored.get("model_input_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise _wrong(root, TOKENIZER_CONFIG, "model_input_names", "a list of strings", names)
    return TextRules(
        lowercase=_flag(root, name, sentence, "do_lower_case"),
        token_types=names is None or "token_type_ids" in names,
        ending=ending,
        first=_token(stored, "bos_token") if _flag(root, TOKENIZER_CONFIG, stored, "add_bos_token") else "",
        last=_token(stored, "eos_token") if _flag(root, TOKENIZER_CONFIG, stored, "add_eos_token") else "",
    )


def read_special_token(root: Path, *keys: str) -> str:
    """The token that tokenizer_config.json has under the first of the keys that names one; "" where none does."""
    stored = read_optional_object(root, TOKENIZER_CONFIG) or {}
    return next(filter(None, (_token(stored, key) for key in keys)), "")


def _token(stored: dict[str, Any], key: str) -> str:
    token = stored.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _flag(root: Path, name: str, stored: dict[str, Any], key: str) -> bool:
    value = stored.get(key)
    if not isinstance(value, bool | None):
        raise _wrong(root, name, key, "true or false", value)
    return bool(value)


def _wrong(root: Path, name: str, key: str, wanted: str, value: Any) -> CheckpointError:
    return CheckpointError(f"Failed to parse `{name}` in {root}: `{key}` should be {wanted}, is {describe(value)}")
