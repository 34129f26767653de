"""What `config.json` says about the kind of model and about its length."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedError
from ..types import Kind
from .json_files import Found, describe, is_integer, read_object, read_optional_object

logger = logging.getLogger(__name__)

SENTENCE_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""The settings sentence-transformers writes beside a Transformer, under the names of all its versions."""

WHOLE_KEYS = ("model_type", "architectures", "auto_map", "id2label", "label2id", "problem_type", "tie_word_embeddings")
"""What a config.json with a `text_config` says of the whole model, and not of its part for texts."""

LENGTH_KEYS = ("max_position_embeddings", "max_trained_positions", "n_positions")

# Transformers writes 1e30 for a tokenizer without a limit.
NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`config.json`, with the keys checked that every model has."""

    values: dict[str, Any]
    """The whole file; of a model that takes more than texts, what `text_config` says is on top."""
    model_type: str
    architectures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes of a classifier."""

    names: tuple[str, ...] = ()
    """By class index."""
    ids: dict[str, int] | None = None
    """`label2id` as it is."""


def read_config(folder: Path) -> ModelConfig:
    """`config.json` of `folder`; `architectures` and `model_type` must be there."""
    values = _flatten(read_object(folder, "config.json"))
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise _bad_key(folder, "model_type", values, "a string")
    architectures = values.get("architectures")
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise _bad_key(folder, "architectures", values, "a list of strings")
    return ModelConfig(values, model_type, tuple(architectures))


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    """A model that sees or hears too describes its part for texts in `text_config`."""
    text = values.get("text_config")
    if not isinstance(text, dict):
        return values
    whole = {key: values[key] for key in WHOLE_KEYS if values.get(key) is not None}
    return values | text | whole


UNNAMED_LABELS = 2
"""Classes of a classifier whose config.json says nothing of them, as in Transformers."""


def read_kind(folder: Path, config: ModelConfig, *, splade: str) -> Found[Kind]:
    """Walks `architectures`; the first name that decides wins. splade: what asks for SPLADE pooling; "": nothing does.

    Raises `UnsupportedError` for token classifiers, and for SPLADE on a model without a masked-LM head.
    """
    for name in config.architectures:
        if name.endswith("ForTokenClassification"):
            has_labels = config.values.get("id2label") is not None and config.values.get("label2id") is not None
            if name == "NewForTokenClassification" and not has_labels:
                # gte-multilingual-base is an embedding model, whatever its config says
                logger.warning("`config.json` names %s but no labels: taken for an embedding model", name)
                continue
            problem = f"`architectures` of `config.json` in {folder}: {name} (a label per token) is not supported"
            raise UnsupportedError(problem)
        if splade and name.endswith("MaskedLM"):
            return Found(Kind.EMBEDDING, f"`architectures` of config.json ({name}) and {splade}")
        if name.endswith("Classification"):
            labels = len(read_labels(folder, config).names)
            source = f"`architectures` of config.json ({name}) and its labels ({labels})"
            return Found(Kind.CLASSIFIER if labels > 1 else Kind.RERANKER, source)
    if splade:
        problem = "Splade pooling is not supported: model is not a ForMaskedLM model"
        raise UnsupportedError(f"{problem} (`architectures`: {', '.join(config.architectures)})")
    return Found(Kind.EMBEDDING, f"`architectures` of config.json ({', '.join(config.architectures) or 'empty'})")


def read_labels(folder: Path, config: ModelConfig) -> Labels:
    """`id2label` and `label2id`; a single class without a name is `LABEL_0`, as in Transformers. Where both are missing
    there are `LABEL_0`, `LABEL_1`, ... for `num_labels`: Transformers leaves out names that it gave two classes itself.

    Raises `CheckpointError` when one is missing or skips a class.
    """
    if config.values.get("id2label") is None and config.values.get("label2id") is None:
        count = config.values.get("num_labels", UNNAMED_LABELS)
        if not is_integer(count) or count < 1:
            raise _bad_key(folder, "num_labels", config.values, "a number of labels")
        unnamed = tuple(f"LABEL_{index}" for index in range(count))
        return Labels(unnamed, {name: index for index, name in enumerate(unnamed)})
    for key in ("id2label", "label2id"):
        if config.values.get(key) is None:
            raise CheckpointError(
                f"`config.json` does not contain `{key}`", hint=f"add the map to {folder / 'config.json'}"
            )
        if not isinstance(config.values[key], dict):
            raise _bad_key(folder, key, config.values, "an object")
    id2label, label2id = config.values["id2label"], config.values["label2id"]
    names = tuple(id2label.get(str(index)) for index in range(len(id2label)))
    if not all(isinstance(name, str | int) for name in names):
        keys = f'"0" to "{len(id2label) - 1}"'
        raise _bad_key(folder, "id2label", config.values, f"the keys {keys}, each with a name")
    if not all(is_integer(index) for index in label2id.values()):
        raise _bad_key(folder, "label2id", config.values, "integers")
    return Labels(tuple(map(str, names)) or ("LABEL_0",), label2id)


def read_max_length(folder: Path, config: ModelConfig, first_position: int | None) -> Found[int]:
    """The longest input in tokens, special tokens included. first_position: see `Facts`.

    `max_seq_length` of the first of `SENTENCE_FILES` there is, capped by the positions there are; else the positions.
    """
    positions = _positions(folder, config, first_position or 0)
    name = next((name for name in SENTENCE_FILES if (folder / name).exists()), None)
    if name is None:
        logger.warning("Could not find a Sentence Transformers config: the length is taken from `config.json`")
        length = positions
    else:
        length = _sentence_length(folder, name, positions)
    if length is None:
        keys = ", ".join(f"`{key}`" for key in LENGTH_KEYS)
        raise CheckpointError(f"`config.json` in {folder} has none of {keys}: the longest input is not known")
    if positions is not None and length.value > positions.value and first_position is not None:
        problem = "`max_seq_length` of `%s` is %d: lowered to the %d positions there are"
        logger.warning(problem, name, length.value, positions.value)
        return positions
    return length


def read_position_limit(folder: Path, config: ModelConfig, first_position: int | None) -> int | None:
    """Rows of the model's table of positions, less those it skips; None for models without a table."""
    positions = None if first_position is None else _positions(folder, config, first_position)
    return None if positions is None else positions.value


def _sentence_length(folder: Path, name: str, positions: Found[int] | None) -> Found[int] | None:
    values = read_object(folder, name)
    length: Any = values.get("max_seq_length")
    if length is None and "transformer_task" in values:
        # sentence-transformers from 5.4 on keeps the length with the tokenizer; a huge number there means "no limit"
        limit: Any = (read_optional_object(folder, "tokenizer_config.json") or {}).get("model_max_length")
        lengths = [] if positions is None else [positions]
        if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < NO_LIMIT:
            lengths.insert(0, Found(int(limit), "`model_max_length` of tokenizer_config.json"))
        return min(lengths, key=lambda n: n.value, default=None)
    if not is_integer(length) or length <= 0:
        problem = f"`max_seq_length` should be a positive integer, is {describe(length)}"
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
    return Found(int(length), f"`max_seq_length` of {name}")


def _positions(folder: Path, config: ModelConfig, first: int) -> Found[int] | None:
    """The positions there are, less those the model skips; None when `config.json` does not say."""
    key = next((key for key in LENGTH_KEYS if config.values.get(key) is not None), None)
    if key is None:
        return None
    positions = config.values[key]
    if not is_integer(positions) or positions <= 0:
        raise _bad_key(folder, key, config.values, "a positive integer")
    if positions <= first:
        raise _bad_key(folder, key, config.values, f"more than {first}, the position of the first token")
    return Found(positions - first, f"`{key}` of config.json" + (f" less {first}, its first position" if first else ""))


def _bad_key(folder: Path, key: str, values: dict[str, Any], wanted: str) -> CheckpointError:
    state = f"should be {wanted}, is {describe(values[key])}" if key in values else f"({wanted}) is missing"
    return CheckpointError(f"Failed to parse `config.json` in {folder}: `{key}` {state}")
