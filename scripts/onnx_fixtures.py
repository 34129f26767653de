"""Exports the graphs in tests/fixtures/onnx from the fixture checkpoints of the same names.

python scripts/onnx_fixtures.py tests/fixtures      (needs torch, transformers, onnx)
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

GRAPHS = [
    ("bert", AutoModel, ("input_ids", "attention_mask", "token_type_ids"), "last_hidden_state", "onnx/model.onnx"),
    (
        "bert-classifier",
        AutoModelForSequenceClassification,
        ("input_ids", "attention_mask", "token_type_ids"),
        "logits",
        "model.onnx",
    ),
    ("roberta", AutoModel, ("input_ids", "attention_mask", "position_ids"), "last_hidden_state", "model.onnx"),
    ("distilbert-splade", AutoModelForMaskedLM, ("input_ids", "attention_mask"), "logits", "model.onnx"),
]
"""Fixture, class of Transformers, inputs, output, file."""


class Named(torch.nn.Module):
    """A model that takes inputs by place and gives one output."""

    def __init__(self, model: torch.nn.Module, inputs: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.model, self.inputs, self.output = model, inputs, output

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.inputs, values, strict=True)))[self.output]


def main() -> None:
    fixtures = Path(sys.argv[1])
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 8, 7, 3]])
    example = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "token_type_ids": torch.zeros_like(ids),
        "position_ids": torch.arange(2, 7).expand(2, 5),
    }
    for name, architecture, inputs, output, file in GRAPHS:
        source, target = fixtures / "models" / name, fixtures / "onnx" / name
        model = architecture.from_pretrained(source, attn_implementation="eager").eval()
        axes = {each: {0: "batch", 1: "sequence"} for each in inputs}
        axes[output] = {0: "batch"} if architecture is AutoModelForSequenceClassification else axes["input_ids"]
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            Named(model, inputs, output),
            tuple(example[each] for each in inputs),
            str(target / file),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        for path in source.rglob("*.json"):
            if path.name not in ("expected.json", "special_tokens_map.json"):
                (target / path.relative_to(source)).parent.mkdir(exist_ok=True)
                shutil.copy(path, target / path.relative_to(source))


if __name__ == "__main__":
    main()
