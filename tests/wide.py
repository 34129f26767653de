"""A checkpoint large enough to be told from the noise of an allocator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from oracle.expected import MODELS


def write_wide(folder: Path, width: int, layers: int, dtype: str = "F32") -> None:
    """The fixture `bert`, wider and deeper, with random weights. dtype: F32 or BF16."""
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
        (folder / name).write_bytes((MODELS / "bert" / name).read_bytes())
    config = json.loads((MODELS / "bert" / "config.json").read_text())
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    wider = {config["hidden_size"]: width, config["intermediate_size"]: 4 * width}
    small = load_file(MODELS / "bert" / "model.safetensors")
    rng = np.random.default_rng(1)
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in small.items():
        shape = [wider.get(length, length) for length in tensor.shape]
        for layer in range(layers) if ".layer.0." in name else (None,):
            own = name if layer is None else name.replace(".layer.0.", f".layer.{layer}.")
            arrays[own] = _stored((rng.standard_normal(shape) / 50).astype(np.float32), dtype)
    if dtype == "F32":
        save_file(arrays, folder / "model.safetensors")
        return
    header: dict[str, Any] = {}
    begin = 0
    for name, values in arrays.items():
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [begin, begin + values.nbytes]}
        begin += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = b"".join(values.tobytes() for values in arrays.values())
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content)


def _stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    return values if dtype == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)
