"""Writes the files of checkpoints, right and wrong ones, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int32": "I32", "uint16": "BF16"}


def write_safetensors(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    """The format written by hand; uint16 arrays are written as bfloat16."""
    header, body = {}, b""
    for name, array in tensors.items():
        data = array.tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        body += data
    write_raw_safetensors(path, header, body)


def write_raw_safetensors(path: Path, header: Any, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_model(folder: Path, *, config: dict[str, Any] | None = None, **files: Any) -> Path:
    """The smallest folder that opens: an embedding model without sentence-transformers files.

    config: keys put over those of the default; files: JSON files by path, `__` for `/`, without the suffix.
    """
    default = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 64}
    write_json(folder / "config.json", default | (config or {}))
    write_json(folder / "tokenizer.json", {})
    write_safetensors(folder / "model.safetensors", {"w": np.ones((2, 2), np.float32)})
    for name, content in files.items():
        write_json(folder / (name.replace("__", "/") + ".json"), content)
    return folder


def write_dense(folder: Path, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, /, **config: Any) -> None:
    """A Dense module; config: keys put over the right ones."""
    sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    write_json(folder / "config.json", sizes | config)
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    write_safetensors(folder / "model.safetensors", tensors)


def modules(*entries: tuple[str, str]) -> list[dict[str, Any]]:
    """`modules.json` of (type, path) pairs; types without a dot are those of `sentence_transformers.models`."""
    prefix = "sentence_transformers.models."
    return [
        {"idx": index, "name": str(index), "path": path, "type": kind if "." in kind else prefix + kind}
        for index, (kind, path) in enumerate(entries)
    ]
