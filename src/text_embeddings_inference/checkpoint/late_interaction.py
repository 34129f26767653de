"""The settings of a model for late interaction, as PyLate writes them into `config_sentence_transformers.json`.

Source of keys and defaults: https://github.com/lightonai/pylate (`pylate/models/colbert.py`).
"""

from __future__ import annotations

import logging
import string
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..types import LateInteraction
from .json_files import describe, is_integer, read_optional_object
from .text_rules import TOKENIZER_CONFIG, read_special_token

logger = logging.getLogger(__name__)

NAME = "config_sentence_transformers.json"

DEFAULTS: dict[str, Any] = {
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 32,
    "document_length": 180,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
}


def read_late_interaction(folder: Path, root: Path, positions: int | None) -> LateInteraction:
    """The settings in `folder`, with PyLate's defaults for what is missing or null.

    root: folder of the tokenizer; positions: most tokens the model can take, None for no limit.
    Raises `CheckpointError` for a value of another type, and where there is no token to fill queries up with.
    """
    stored = read_optional_object(folder, NAME) or {}
    values = {key: default if stored.get(key) is None else stored[key] for key, default in DEFAULTS.items()}
    for key, default in DEFAULTS.items():
        if not _fits(values[key], default):
            problem = f"`{key}` should be like {describe(default)}, is {describe(values[key])}"
            raise CheckpointError(f"Failed to parse `{NAME}` in {folder}: {problem}")
    return LateInteraction(
        query_prefix=values["query_prefix"],
        document_prefix=values["document_prefix"],
        query_length=_capped("query_length", values, positions),
        document_length=_capped("document_length", values, positions),
        expansion_token=_read_expansion_token(root) if values["do_query_expansion"] else "",
        attend_to_expansion=values["attend_to_expansion_tokens"],
        skipped=tuple(values["skiplist_words"]),
    )


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    if is_integer(default):
        return is_integer(value) and value > 0
    return type(value) is type(default)


def _capped(key: str, values: dict[str, Any], positions: int | None) -> int:
    length = int(values[key])
    if positions is not None and length > positions:
        logger.warning("`%s` of `%s` is %d: lowered to the %d positions there are", key, NAME, length, positions)
        return positions
    return length


def _read_expansion_token(root: Path) -> str:
    """The mask token, else the token that ends a text, else that of padding."""
    token = read_special_token(root, "mask_token", "eos_token", "pad_token")
    if not token:
        raise CheckpointError(
            f"`{TOKENIZER_CONFIG}` in {root} names no mask token to fill queries up with",
            hint=f"add `mask_token` there, or set `do_query_expansion` in `{NAME}` to false",
        )
    return token
