"""Runs in the peers' own environment: loads a library and embeds on command.

    .venv-peers/libraries/bin/python bench/peers/child.py KIND FOLDER

One order per line of stdin, one answer per line of stdout, both JSON:
{"file": one {"inputs": text} per line, "first": index, "count": texts per call, "seconds": least}
-> {"calls": [seconds of each call], "dtype": what is computed in}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 32
"""Texts that the libraries compute at once: the default of sentence-transformers and infinity."""

Embed = Callable[[list[str]], Any]


def sentence_transformers(folder: str, backend: str, dtype: str) -> tuple[Embed, str]:
    """The library as its documentation shows it; it sorts the texts of a call by length itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    options = {"model_kwargs": {"torch_dtype": getattr(torch, dtype)}} if backend == "torch" else {}
    model = SentenceTransformer(folder, device="cpu", backend=backend, local_files_only=True, **options)

    def embed(texts: list[str]) -> Any:
        vectors = model.encode(
            texts, batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True, convert_to_tensor=True
        )
        return vectors.float().numpy()

    return embed, dtype if backend == "torch" else precision(model[0].auto_model)


def precision(model: Any) -> str:
    """What OpenVINO chose to compute in."""
    compiled = getattr(model, "request", None) or model.compiled_model
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
    chosen: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return names.get(chosen, chosen)


def onnxruntime(folder: str) -> tuple[Embed, str]:
    """ONNX Runtime alone: tokenizers before it, mean pooling in NumPy behind it, texts sorted by length."""
    import numpy as np
    import onnxruntime as ort
    from tokenizers import Tokenizer

    session = ort.InferenceSession(str(Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(512)

    def embed(texts: list[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows: list[Any] = [None] * len(texts)
        for start in range(0, len(texts), BATCH):
            part = order[start : start + BATCH]
            encodings = tokenizer.encode_batch([texts[i] for i in part])
            ids = np.array([encoding.ids for encoding in encodings], np.int64)
            mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
            inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            hidden = session.run(["last_hidden_state"], inputs)[0]
            vectors = (hidden * mask[:, :, None]).sum(1)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # the mean's divisor is lost in it
            for i, vector in zip(part, vectors, strict=True):
                rows[i] = vector
        return np.stack(rows)

    return embed, "float32"


LOADERS: dict[str, Callable[[str], tuple[Embed, str]]] = {
    "torch-float32": lambda folder: sentence_transformers(folder, "torch", "float32"),
    "torch-bfloat16": lambda folder: sentence_transformers(folder, "torch", "bfloat16"),
    "openvino": lambda folder: sentence_transformers(folder, "openvino", ""),
    "onnxruntime": onnxruntime,
}


def main() -> None:
    kind, folder = sys.argv[1:]
    # Libraries print what they like; only answers may go where answers are read.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    embed, dtype = LOADERS[kind](folder)
    files: dict[str, list[str]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["file"] not in files:
            bodies = Path(order["file"]).read_text().splitlines()
            files[order["file"]] = [json.loads(body)["inputs"] for body in bodies]
        texts, position = files[order["file"]], order["first"]
        calls: list[float] = []
        while not calls or sum(calls) < order["seconds"]:
            chosen = [texts[(position + i) % len(texts)] for i in range(order["count"])]
            position += order["count"]
            start = time.perf_counter()
            embed(chosen)
            calls.append(time.perf_counter() - start)
        print(json.dumps({"calls": calls, "dtype": dtype}), file=answers, flush=True)


if __name__ == "__main__":
    main()
