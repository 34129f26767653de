"""Tables by token: of vectors (StaticEmbedding, model2vec), or of weights (SparseStaticEmbedding).

Formats: `sentence_transformers.sentence_transformer.modules.StaticEmbedding` and
`sentence_transformers.sparse_encoder.modules.SparseStaticEmbedding` of sentence-transformers, and
https://github.com/MinishLab/model2vec. None of them has a config.json that describes the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..types import as_float32
from .config import NO_LIMIT, ModelConfig
from .files import MAX_TOKENIZER_BYTES, read_file
from .json_files import Found, describe, read_optional_object
from .modules import Static
from .tensors.tensor import Tensor
from .tensors.weights import Weights, open_weights
from .text_rules import TOKENIZER_CONFIG

TABLE = "embedding.weight"
"""The table's name in sentence-transformers, and the only tensor of what `open_static` gives."""
MODEL2VEC_TABLE, MAPPING, FACTORS = "embeddings", "mapping", "weights"
WEIGHT = "weight"
"""The tensor of a SparseStaticEmbedding: `[V]`."""

UNLIMITED = 1 << 20
"""Tokens of the longest text where nothing limits it: more than a batch may have."""

MODEL_TYPES = {Static.VECTORS: "model2vec", Static.WEIGHTS: "sparse_static_embedding"}
"""What stands for `model_type`."""


class _Truncation(msgspec.Struct):
    max_length: int


class _TokenizerFile(msgspec.Struct):
    """What is read of a tokenizer.json."""

    truncation: _Truncation | None = None


def read_static_config(root: Path, static: Static) -> ModelConfig:
    """The sizes of the table in `root`, in place of a config.json. Raises `CheckpointError` for a wrong shape."""
    weights = open_weights(root)
    if static is Static.WEIGHTS:
        _check_config(root)
        sizes = {"vocab_size": _shape(weights, WEIGHT, 1)[0], "hidden_size": 1}
    else:
        rows, width = _shape(weights, _table(weights), 2)
        mapped = next((_shape(weights, name, 1)[0] for name in (MAPPING, FACTORS) if _has(weights, name)), rows)
        sizes = {"vocab_size": mapped, "hidden_size": width}
    name = MODEL_TYPES[static]
    return ModelConfig({"model_type": name, **sizes}, name, ())


def open_static(root: Path) -> Weights:
    """The table in `root` as `TABLE`, a row for each token.

    What model2vec stores beside it is multiplied into it: row t is `embeddings[mapping[t]] * weights[t]`. Numbers that
    are no floats (int8 tables) become float32.
    Raises `CheckpointError` for a mapping to rows that there are not, or factors of another number than tokens.
    """
    weights = open_weights(root)
    name = _table(weights)
    table, file = weights.raw(name), weights.file(name)
    if name == TABLE and weights.is_float(name):
        return weights
    if _has(weights, MAPPING):
        rows: NDArray[Any] = weights.raw(MAPPING)
        if (
            rows.dtype.kind not in "iu"
            or rows.ndim != 1
            or rows.size == 0
            or rows.min() < 0
            or rows.max() >= len(table)
        ):
            raise CheckpointError(
                f"{file}: `{MAPPING}` should have numbers of rows of `{name}`, which has {len(table)}"
            )
        table = table[rows]
    if _has(weights, FACTORS):
        factors = weights.array(FACTORS)
        if factors.shape != (len(table),):
            raise CheckpointError(f"{file}: `{FACTORS}` has shape {factors.shape}, there are {len(table)} tokens")
        table = as_float32(table) * factors[:, None]
    dtype = weights.dtype(name)
    if not weights.is_float(name) or table.dtype == np.float32:
        table, dtype = as_float32(table), "F32"
    return Weights([Tensor(file, TABLE, dtype, table)], weights.files)


def read_token_weights(root: Path) -> Weights:
    """The weights of tokens of a SparseStaticEmbedding. Raises `CheckpointError` where there are none."""
    weights = open_weights(root)
    _shape(weights, WEIGHT, 1)
    return weights


def read_static_length(root: Path, static: Static) -> Found[int]:
    """The longest text in tokens, which have no special ones around them."""
    if static is Static.WEIGHTS:
        limit: Any = (read_optional_object(root, TOKENIZER_CONFIG) or {}).get("model_max_length")
        if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < NO_LIMIT:
            return Found(int(limit), f"`model_max_length` of {TOKENIZER_CONFIG}")
        return Found(UNLIMITED, "the most that is taken: the model has no limit of its own")
    try:
        content = read_file(root, "tokenizer.json", MAX_TOKENIZER_BYTES)
        truncation = msgspec.json.decode(content, type=_TokenizerFile).truncation
    except msgspec.DecodeError as error:
        raise CheckpointError(f"Failed to parse `tokenizer.json` in {root}: {error}") from error
    if truncation is not None and truncation.max_length > 0:
        return Found(truncation.max_length, "`truncation` of tokenizer.json")
    return Found(UNLIMITED, "the most that is taken: the model has no limit of its own")


def _check_config(root: Path) -> None:
    path = (read_optional_object(root, "config.json") or {}).get("path")
    if path is not None:
        raise CheckpointError(
            f"`path` of `config.json` in {root} is {describe(path)}: weights are read from model.safetensors only",
            hint="load the model with sentence-transformers and save it again",
        )


def _table(weights: Weights) -> str:
    name = next((name for name in (TABLE, MODEL2VEC_TABLE) if name in weights), None)
    if name is None:
        names = ", ".join(weights) or "nothing"
        raise CheckpointError(f"the weights should hold `{TABLE}` or `{MODEL2VEC_TABLE}`; they hold {names}")
    return name


def _has(weights: Weights, name: str) -> bool:
    """Whether model2vec stored it: beside a table of sentence-transformers nothing is read."""
    return TABLE not in weights and name in weights


def _shape(weights: Weights, name: str, rank: int) -> tuple[int, ...]:
    shape = weights.shape(name)
    if len(shape) != rank or 0 in shape:
        raise CheckpointError(
            f"tensor `{name}` in {weights.file(name)} has shape {shape}, should have {rank} dimensions"
        )
    return shape
