"""The settings of a model for late interaction (ColBERT), in the three formats that there are.

- PyLate: `config_sentence_transformers.json`. Keys and defaults: https://github.com/lightonai/pylate
  (`pylate/models/colbert.py`).
- Stanford's `HF_ColBERT`: `artifact.metadata`, and the projection beside the encoder as `linear.weight`. Keys:
  https://github.com/stanford-futuredata/ColBERT (`colbert/infra/config/settings.py`); defaults where the file or a key
  is missing: as sentence-transformers reads it.
- sentence-transformers 6 (`MultiVectorEncoder`): lengths and `query_expansion` beside the Transformer, the skip list
  in the module MultiVectorMask, prefixes as prompts: https://sbert.net/docs/multi_vector_encoder.
"""

from __future__ import annotations

import logging
import string
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError, UnsupportedError
from ..types import LateInteraction
from .config import SENTENCE_FILES
from .json_files import describe, is_integer, read_object, read_optional_object
from .modules import MODULES, Dense, ModulePaths
from .tensors.weights import Weights
from .text_rules import TOKENIZER_CONFIG, read_special_token

logger = logging.getLogger(__name__)

NAME = "config_sentence_transformers.json"
ARTIFACT = "artifact.metadata"
HF_COLBERT = "HF_ColBERT"
"""What Stanford's code calls the architecture in config.json, whatever the encoder is."""
PROJECTION = "linear"
"""The layer that Stanford's format has beside the encoder."""
PUNCTUATION = list(string.punctuation)


class LateFormat(StrEnum):
    """Who wrote the settings."""

    PYLATE = "PyLate"
    STANFORD = "Stanford's ColBERT"
    SENTENCE_TRANSFORMERS = "sentence-transformers"


class LateFiles(NamedTuple):
    """Where the settings are, and what limits them."""

    folder: Path
    root: Path
    """The Transformer's folder."""
    modules: ModulePaths
    positions: int | None
    """Most tokens the model can take; None for no limit."""
    longest: int
    """Tokens of the longest input in no role."""


class Key(NamedTuple):
    """A key of a file, and the value of one that is missing or null."""

    name: str
    default: Any


class Keys(NamedTuple):
    """The keys of a format that has all settings in one file."""

    file: str
    query_prefix: Key
    document_prefix: Key
    query_length: Key
    document_length: Key
    expands: Key | None
    """None: queries are always filled up."""
    attends: Key
    skipped: Key
    """A list of words, or whether it is all punctuation."""


KEYS = {
    LateFormat.PYLATE: Keys(
        NAME,
        query_prefix=Key("query_prefix", "[Q] "),
        document_prefix=Key("document_prefix", "[D] "),
        query_length=Key("query_length", 32),
        document_length=Key("document_length", 180),
        expands=Key("do_query_expansion", True),
        attends=Key("attend_to_expansion_tokens", False),
        skipped=Key("skiplist_words", PUNCTUATION),
    ),
    LateFormat.STANFORD: Keys(
        ARTIFACT,
        query_prefix=Key("query_token_id", "[unused0]"),
        document_prefix=Key("doc_token_id", "[unused1]"),
        query_length=Key("query_maxlen", 32),
        document_length=Key("doc_maxlen", 220),
        expands=None,
        attends=Key("attend_to_mask_tokens", False),
        skipped=Key("mask_punctuation", False),
    ),
}


def find_late_format(folder: Path, modules: ModulePaths, architectures: tuple[str, ...]) -> LateFormat | None:
    """The format of a model for late interaction; None of other models. Raises `CheckpointError` for a damaged file.

    modules: those that are run. Stanford's models have no modules.json; where theirs have one, it decides.
    """
    if modules.late:
        stored = read_optional_object(folder, NAME) or {}
        is_encoder = modules.mask is not None or stored.get("model_type") == "MultiVectorEncoder"
        return LateFormat.SENTENCE_TRANSFORMERS if is_encoder else LateFormat.PYLATE
    has_artifact = (folder / ARTIFACT).exists() and not (folder / MODULES).exists()
    return LateFormat.STANFORD if HF_COLBERT in architectures or has_artifact else None


def read_late_interaction(files: LateFiles, kind: LateFormat) -> LateInteraction:
    """The settings, with the format's defaults for what is missing or null.

    Raises `CheckpointError` for a value of another type, and where there is no token to fill queries up with.
    """
    return _read_multi_vector(files) if kind is LateFormat.SENTENCE_TRANSFORMERS else _read_keys(files, KEYS[kind])


def read_projection(weights: Weights) -> Dense:
    """The layer for tokens that Stanford's format has among the encoder's weights.

    Raises `CheckpointError` where there is none.
    """
    names = [name for leaf in ("weight", "bias") if (name := f"{PROJECTION}.{leaf}") in weights]
    if f"{PROJECTION}.weight" not in names or len(weights.shape(names[0])) != 2:
        raise CheckpointError(
            f"the weights have no matrix `{PROJECTION}.weight`, the projection of a ColBERT model's tokens",
            hint=f"config.json says {HF_COLBERT}: take the checkpoint in safetensors with all of its tensors, or one "
            "saved by PyLate or sentence-transformers",
        )
    return Dense(weights.part(names), f"{PROJECTION}.", has_bias=len(names) > 1, activation="identity")


def _read_keys(files: LateFiles, keys: Keys) -> LateInteraction:
    stored = read_optional_object(files.folder, keys.file) or {}

    def value(key: Key) -> Any:
        found = stored.get(key.name)
        if found is None:
            return key.default
        if not _fits(found, key.default):
            problem = f"`{key.name}` should be like {describe(key.default)}, is {describe(found)}"
            raise CheckpointError(f"Failed to parse `{keys.file}` in {files.folder}: {problem}")
        return found

    def length(key: Key) -> int:
        return _capped(files, keys.file, key.name, int(value(key)))

    skipped = value(keys.skipped)
    return LateInteraction(
        query_prefix=value(keys.query_prefix),
        document_prefix=value(keys.document_prefix),
        query_length=length(keys.query_length),
        document_length=length(keys.document_length),
        expansion_token=_expansion_token(files, keys) if keys.expands is None or value(keys.expands) else "",
        attend_to_expansion=value(keys.attends),
        skipped=tuple(skipped if isinstance(skipped, list) else PUNCTUATION if skipped else ()),
    )


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    if is_integer(default):
        return is_integer(value) and value > 0
    return type(value) is type(default)


def _capped(files: LateFiles, file: str, key: str, length: int) -> int:
    if files.positions is not None and length > files.positions:
        problem = "`%s` of `%s` is %d: lowered to the %d positions there are"
        logger.warning(problem, key, file, length, files.positions)
        return files.positions
    return length


def _expansion_token(files: LateFiles, keys: Keys | None = None) -> str:
    """The mask token, else the token that ends a text, else that of padding."""
    token = read_special_token(files.root, "mask_token", "eos_token", "pad_token")
    if token:
        return token
    off = "" if keys is None or keys.expands is None else f", or set `{keys.expands.name}` in `{keys.file}` to false"
    raise CheckpointError(
        f"`{TOKENIZER_CONFIG}` in {files.root} names no mask token to fill queries up with",
        hint=f"add `mask_token` there{off}",
    )


class _Expansion(NamedTuple):
    """`query_expansion` of sentence-transformers."""

    strategy: str = ""
    """`fixed`: queries have `length` tokens; `min`: at least so many."""
    attend: bool = False
    token: str | None = None
    length: int = 0


def _read_multi_vector(files: LateFiles) -> LateInteraction:
    file = next((name for name in SENTENCE_FILES if (files.root / name).exists()), SENTENCE_FILES[0])
    stored = read_optional_object(files.root, file) or {}
    expansion = _read_expansion(files, file, stored.get("query_expansion"))
    query, document = (_read_length(files, file, stored, key) for key in ("query_length", "document_length"))
    if expansion is not None:
        filled = _capped(files, file, "query_expansion", expansion.length)
        query = filled if expansion.strategy == "fixed" else max(query, filled)
    mask = _read_mask(files)
    return LateInteraction(
        query_prefix="",
        document_prefix="",
        query_length=query,
        document_length=document,
        expansion_token="" if expansion is None else expansion.token or _expansion_token(files),
        attend_to_expansion=expansion is not None and expansion.attend,
        skipped=mask.words,
        skipping=mask.tasks,
        expansion_length=None if expansion is None else filled,
        only=mask.only,
        normalized=files.modules.normalizes_tokens,
    )


def _read_length(files: LateFiles, file: str, stored: dict[str, Any], key: str) -> int:
    value = stored.get(key)
    if value is None:
        return files.longest
    if not (is_integer(value) and value > 0):
        raise _wrong(files.root, file, key, "a positive integer", value)
    return _capped(files, file, key, value)


def _read_expansion(files: LateFiles, file: str, value: Any) -> _Expansion | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong(files.root, file, "query_expansion", "an object", value)
    if unknown := sorted(value.keys() - set(_Expansion._fields)):
        problem = f"`query_expansion` of `{file}` in {files.root} has keys that are not known: {', '.join(unknown)}"
        raise UnsupportedError(problem)
    found = _Expansion(**value)
    if found.strategy not in ("fixed", "min"):
        problem = f"`strategy` of `query_expansion` of `{file}` in {files.root} is {describe(found.strategy)}"
        raise UnsupportedError(f"{problem}: not supported", hint="supported: fixed, min")
    if not isinstance(found.attend, bool):
        raise _wrong(files.root, file, "query_expansion.attend", "true or false", found.attend)
    if not isinstance(found.token, str | None):
        raise _wrong(files.root, file, "query_expansion.token", "a token", found.token)
    if not (is_integer(found.length) and found.length > 0):
        raise _wrong(files.root, file, "query_expansion.length", "a positive integer", found.length)
    return found


class _Mask(NamedTuple):
    """The module MultiVectorMask."""

    words: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("document",)
    only: tuple[int, ...] = ()


def _read_mask(files: LateFiles) -> _Mask:
    """Which tokens get no vector; without the module all do."""
    if files.modules.mask is None:
        return _Mask()
    name = str(PurePosixPath(files.modules.mask) / "config.json")
    stored = read_object(files.folder, name)
    words, tasks, only = (stored.get(key) for key in ("skiplist_words", "skiplist_tasks", "keep_only_token_ids"))
    tasks = [tasks] if isinstance(tasks, str) else tasks
    for key, value in (("skiplist_words", words), ("skiplist_tasks", tasks)):
        if value is not None and not _fits(value, PUNCTUATION):
            raise _wrong(files.folder, name, key, "a list of strings", value)
    if only is not None and not (isinstance(only, list) and all(map(is_integer, only))):
        raise _wrong(files.folder, name, "keep_only_token_ids", "a list of token ids", only)
    return _Mask(tuple(words or ()), ("document",) if tasks is None else tuple(tasks), tuple(only or ()))


def _wrong(folder: Path, file: str, key: str, wanted: str, value: Any) -> CheckpointError:
    return CheckpointError(f"Failed to parse `{file}` in {folder}: `{key}` should be {wanted}, is {describe(value)}")
