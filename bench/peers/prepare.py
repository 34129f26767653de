"""Runs in the peers' own environment: writes a model in the forms that OpenVINO and ONNX Runtime read, once.

    .venv-peers/libraries/bin/python bench/peers/prepare.py MODEL FOLDER

FOLDER/openvino is what sentence-transformers saves of its OpenVINO backend; FOLDER/onnx holds model.onnx (PyTorch's own
export, float32) and the tokenizer. Without this each start would export anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any


def export_openvino(model: Path, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(model), device="cpu", backend="openvino", local_files_only=True).save_pretrained(
        str(folder)
    )


def export_onnx(model: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModel

    network = AutoModel.from_pretrained(model, local_files_only=True, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            # The library's own way to such a mask can't be traced.
            mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            return self.network(input_ids, attention_mask=mask, token_type_ids=token_type_ids).last_hidden_state

    # Two texts of unlike length: a mask of ones only would be traced away.
    ids = torch.ones((2, 16), dtype=torch.int64)
    mask = ids.clone()
    mask[1, 8:] = 0
    names = ["input_ids", "attention_mask", "token_type_ids"]
    folder.mkdir(parents=True)
    torch.onnx.export(
        Hidden(),
        (ids, mask, torch.zeros_like(ids)),
        str(folder / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={key: {0: "batch", 1: "length"} for key in [*names, "last_hidden_state"]},
        opset_version=17,
        dynamo=False,
    )
    shutil.copy(model / "tokenizer.json", folder)


def main() -> None:
    model, folder = map(Path, sys.argv[1:])
    for name, export in {"openvino": export_openvino, "onnx": export_onnx}.items():
        if not (folder / name).exists():
            part = folder / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            export(model, part)
            part.rename(folder / name)


if __name__ == "__main__":
    main()
