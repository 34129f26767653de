"""Writes a checkpoint of BERT-base's shape with random weights and another model's tokenizer.

    python -m bench.load.base_shape .venv/models/bert-base-shape --tokenizer .venv/models/all-MiniLM-L6-v2

The weights are the same on every run. Speed and memory don't depend on their values, and no 438 MB have to be fetched.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 7
SPREAD = 0.02
"""BERT's own standard deviation at the start of its training."""

CONFIG: dict[str, object] = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": SPREAD,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
POOLING = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
LENGTH = {"max_seq_length": 512, "do_lower_case": False}


def shapes(hidden: int, wide: int, layers: int, vocabulary: int, positions: int) -> Iterator[tuple[str, list[int]]]:
    """The tensors of a BertModel, in the order they are written."""

    def normed(name: str) -> Iterator[tuple[str, list[int]]]:
        yield f"{name}.LayerNorm.weight", [hidden]
        yield f"{name}.LayerNorm.bias", [hidden]

    def linear(name: str, out: int, into: int) -> Iterator[tuple[str, list[int]]]:
        yield f"{name}.weight", [out, into]
        yield f"{name}.bias", [out]

    yield "embeddings.word_embeddings.weight", [vocabulary, hidden]
    yield "embeddings.position_embeddings.weight", [positions, hidden]
    yield "embeddings.token_type_embeddings.weight", [2, hidden]
    yield from normed("embeddings")
    for number in range(layers):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from normed(f"{layer}.attention.output")
        yield from linear(f"{layer}.intermediate.dense", wide, hidden)
        yield from linear(f"{layer}.output.dense", hidden, wide)
        yield from normed(f"{layer}.output")
    yield from linear("pooler.dense", hidden, hidden)


def values(name: str, shape: list[int], random: np.random.Generator) -> NDArray[np.float32]:
    """As BERT is initialized: norms do nothing, biases are zero, matrices are normal."""
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    return random.standard_normal(shape, np.float32) * np.float32(SPREAD)


def write_safetensors(file: Path, tensors: list[tuple[str, list[int]]]) -> None:
    """Float32 only. The format: https://github.com/huggingface/safetensors#format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(SEED)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            out.write(values(name, shape, random).tobytes())


def write_checkpoint(folder: Path, tokenizer: Path, config: dict[str, object] = CONFIG) -> None:
    """A model folder, complete for sentence-transformers too. It appears whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "1_Pooling").mkdir(parents=True)
    sizes = [config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")]
    hidden, wide, layers, vocabulary = (int(str(size)) for size in sizes)
    tensors = list(shapes(hidden, wide, layers, vocabulary, int(str(config["max_position_embeddings"]))))
    write_safetensors(part / "model.safetensors", tensors)
    pooling = POOLING | {"word_embedding_dimension": hidden}
    documents = {
        "config.json": config,
        "modules.json": MODULES,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": LENGTH,
        # What a tokenizer file says of padding and truncation belongs to the model that it was made for.
        "tokenizer.json": json.loads((tokenizer / "tokenizer.json").read_text())
        | {"padding": None, "truncation": None},
    }
    for name, document in documents.items():
        (part / name).write_text(json.dumps(document, ensure_ascii=False, indent=1))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.base_shape", description="Writes the checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the model whose tokenizer is taken")
    given = parser.parse_args()
    write_checkpoint(given.folder, given.tokenizer)


if __name__ == "__main__":
    main()
