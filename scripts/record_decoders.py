"""Records what Transformers gives for small decoders of many configurations: tests/fixtures/decoders.json.

Usage: python scripts/record_decoders.py OUTPUT, where torch and transformers 5 are installed (tests need neither). The
weights are drawn from names and shapes (`tests/oracle/drawn.py`), so that none are stored. Each variant has its config
in the spelling of Transformers 4 and as Transformers 5 saves it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle.drawn import draw, token_ids

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 5}
FULL, SLIDING = "full_attention", "sliding_attention"


def rope(kind: str, **keys: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, **keys}}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", rope("linear")),
    "dynamic": ("llama", rope("dynamic")),
    "yarn": ("llama", rope("yarn", original_max_position_embeddings=16)),
    "yarn, all keys": ("llama", rope("yarn", mscale=1.5, mscale_all_dim=0.7, beta_fast=8, truncate=False)),
    "llama3": (
        "llama",
        rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    ),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1, "head_dim": 6}),
    "both ways": ("llama", {"is_causal": False}),
    "Mistral": ("mistral", {"sliding_window": 7}),
    "Mistral without a window": ("mistral", {"sliding_window": None}),
    "Mistral both ways": ("mistral", {"sliding_window": 7, "is_causal": False}),
    "Qwen2": ("qwen2", {**WINDOW, "max_window_layers": 1}),
    "Qwen2 with layer types": ("qwen2", {**WINDOW, "layer_types": [SLIDING, FULL]}),
    "Qwen2 both ways": ("qwen2", {**WINDOW, "max_window_layers": 1, "is_causal": False}),
    "Qwen3": ("qwen3", {**WINDOW, "max_window_layers": 1, "attention_bias": True}),
    "Qwen3, labels": ("qwen3", {"num_labels": 3}),
    "Gemma 3": ("gemma3_text", {"sliding_window": 6, "query_pre_attn_scalar": 20, "num_hidden_layers": 6}),
    "Gemma 3, pattern and rope": (
        "gemma3_text",
        {
            "sliding_window": 6,
            "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_theta": 5000.0,
            "rope_local_base_freq": 300.0,
        },
    ),
    "Gemma 3 both ways": ("gemma3_text", {"sliding_window": 7, "use_bidirectional_attention": True}),
    "Gemma 3, labels": ("gemma3_text", {"sliding_window": 6, "attention_bias": True, "num_labels": 3}),
    "EuroBERT": ("eurobert", {"attention_bias": True, "mlp_bias": True}),
    "EuroBERT, labels, bos": ("eurobert", {"num_labels": 3, "classifier_pooling": "bos"}),
    "EuroBERT, labels, late": ("eurobert", {"num_labels": 3, "classifier_pooling": "late"}),
}


def record(model_type: str, keys: dict[str, Any]) -> dict[str, Any]:
    """One variant: configs, shapes of tensors (`{i}` for the number of a layer) and outputs."""
    given = {**SIZES, **keys}
    config = transformers.AutoConfig.for_model(model_type, pad_token_id=0, **given)
    config._attn_implementation = "eager"
    kind = transformers.AutoModelForSequenceClassification if "num_labels" in keys else transformers.AutoModel
    model = kind.from_config(config).float().eval()
    model.config._attn_implementation = "eager"
    shapes: dict[str, list[int]] = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(draw(name, tuple(tensor.shape))))
            shapes[re.sub(r"layers\.\d+\.", "layers.{i}.", name)] = list(tensor.shape)
        outputs = model(torch.from_numpy(token_ids(40)[None]).long())
    values = outputs.logits[0] if "num_labels" in keys else outputs.last_hidden_state[0, [0, 20, 39]].flatten()
    output = [float(f"{value:.7g}") for value in values]
    labels = given.pop("num_labels", None)
    configs = spellings(given, config)
    return {"model_type": model_type, "configs": configs, "labels": labels, "shapes": shapes, "output": output}


def spellings(given: dict[str, Any], config: Any) -> list[dict[str, Any]]:
    """The config as it was given, in the spelling of Transformers 4, and as Transformers 5 saves it."""
    old = dict(given)
    if parameters := dict(old.pop("rope_parameters", {})):
        old |= {"rope_theta": parameters.pop("rope_theta"), "rope_scaling": parameters}
    if given.get("use_bidirectional_attention"):
        return [old]  # what is saved has a window that was halved already
    saved = config.to_dict()
    new = {key: saved[key] for key in (*given, "rope_parameters", "layer_types") if key in saved}
    return [old, new]


if __name__ == "__main__":
    recorded = {name: record(*variant) for name, variant in VARIANTS.items()}
    about = f"Transformers {transformers.__version__}, float32, eager attention; written by scripts/record_decoders.py"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(variant)}" for name, variant in recorded.items())
    Path(sys.argv[1]).write_text(f'{{\n  "about": {json.dumps(about)},\n{lines}\n}}\n')
