"""Checkpoints whose model is an ONNX graph: which file it is, and what config.json says that the graph does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .config import ModelConfig
from .files import DOWNLOAD_AGAIN
from .json_files import is_integer
from .tensors.weights import WEIGHT_FILES

ONNX_FILES = ("model.onnx", "onnx/model.onnx")
"""Where a graph is looked for when there are no weights of another format, in this order."""

DATA_SUFFIXES = ("_data", ".data")
"""Weights of graphs above 2 GB lie in a file beside it, named like it with one of these."""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """A graph that is the model."""

    file: Path
    first_position: int
    """Of a text's first token, where the graph asks for positions."""
    pad_id: int
    """The token that the graph takes for padding."""


def find_onnx(root: Path, config: ModelConfig, wanted: str | None, first_position: int) -> OnnxGraph | None:
    """The graph that is the model; None where the model is other weights.

    root: the Transformer's folder; wanted: the option `--onnx-file`; first_position: of a text's first token.
    Raises `CheckpointError` when the file is missing.
    """
    if wanted is not None:
        if not (root / wanted).is_file():
            raise CheckpointError(f"`--onnx-file {wanted}`: no such file in {root}", hint=DOWNLOAD_AGAIN)
        return _graph(root / wanted, config, first_position)
    if any((root / name).exists() for name in WEIGHT_FILES):
        return None
    found = next((name for name in ONNX_FILES if (root / name).is_file()), None)
    return None if found is None else _graph(root / found, config, first_position)


def _graph(file: Path, config: ModelConfig, first_position: int) -> OnnxGraph:
    ids = (config.values.get(key) for key in ("pad_token_id", "eos_token_id"))
    pad_id = next((int(id_) for id_ in ids if is_integer(id_) and 0 <= id_ < 2**31), 0)
    return OnnxGraph(file, first_position, pad_id)
