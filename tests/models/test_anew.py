"""Families made anew by Transformers, with other sizes and options than the fixtures', against what it computes.

What a new release of it writes in other words is noticed here. It runs where Transformers is installed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native.kernels import needs_kernels
from text_embeddings_inference import load

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

EMBEDDERS = Path(__file__).parents[1] / "fixtures" / "embedders"
TEXTS = ["hi", "a longer text about foxes and dogs, " * 4, "The quick brown fox jumps.", "word " * 100]
LONGEST = 256
"""Tokens, as sentence_bert_config.json of the fixtures says."""

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e5,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "mscale": 1.0,
    "mscale_all_dim": 0.4,
    "llama_4_scaling_beta": 0.3,
}
WIDE = {"num_key_value_heads": 1, "head_dim": 32}
KINDS = ["sliding_attention", "full_attention"] * 2

TWINS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma2 with short windows": (
        "gemma2",
        {"sliding_window": 8, "num_hidden_layers": 3, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 1.0},
        {},
    ),
    "gemma2 without a bound": ("gemma2", {"attn_logit_softcapping": None, "sliding_window": 8}, {}),
    "gemma2 with biases": ("gemma2", {"layer_types": KINDS[:2][::-1], "sliding_window": 5, "attention_bias": True}, {}),
    "gemma2 that sees ahead": ("gemma2", {"is_causal": False, "sliding_window": 8}, {}),
    "ministral3 with two scales": ("nemotron-3-embed", {"rope_parameters": YARN}, {}),
    "ministral3, causal": ("nemotron-3-embed", {"is_causal": True, "sliding_window": 7, "num_key_value_heads": 4}, {}),
    "ministral3 with a window": ("nemotron-3-embed", {"sliding_window": 7}, {}),
    "qwen3_vl": ("Qwen3-VL-Embedding-2B", {}, {"num_hidden_layers": 3, "attention_bias": True}),
    "embedding_gemma2": (
        "embeddinggemma-2",
        {},
        {
            "num_hidden_layers": 4,
            "layer_types": KINDS,
            "sliding_window": 6,
            "per_layer_config": {"1": WIDE, "3": WIDE},
            "embedding_dim": 40,
        },
    ),
    "embedding_gemma2 without towers": (
        "embeddinggemma-2",
        {"vision_config": None, "audio_config": None},
        {"attention_bias": True},
    ),
    "embedding_gemma2 without kinds": (
        "embeddinggemma-2",
        {},
        {"num_hidden_layers": 7, "layer_types": None, "sliding_window": 3, "per_layer_config": {}},
    ),
}
"""The fixture whose other files are taken, and what is changed in config.json and in its `text_config`."""


def make(folder: Path, twin: str) -> Any:
    """A checkpoint of random weights in the folder, saved by Transformers. Returns its model for texts."""
    base, changes, text_changes = TWINS[twin]
    shutil.copytree(EMBEDDERS / base, folder)
    (folder / "model.safetensors").unlink()
    values = json.loads((folder / "config.json").read_text()) | changes
    values.get("text_config", {}).update(text_changes)
    (folder / "config.json").write_text(json.dumps(values))
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.3 * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.8)
    model.save_pretrained(folder)
    return getattr(model, "language_model", model)


def reference(folder: Path, model: Any) -> list[Any]:
    """Normalized vectors of `TEXTS`, pooled as the folder's files say."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    takes_last = json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_lasttoken"]
    vectors = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"][:LONGEST]])
        with torch.no_grad():
            tokens = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        pooled = tokens[-1] if takes_last else tokens.mean(0)
        vectors.append((pooled / pooled.norm()).numpy())
    return vectors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("engine", ["openvino", pytest.param("native", marks=needs_kernels), "torch"])
def test_vectors_are_those_of_transformers(twin: str, engine: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    wanted = np.array(reference(folder, make(folder, twin)))
    with load(folder, dtype="float32", threads=2, streams=1, engine=engine) as model:
        assert (model.embed(TEXTS) * wanted).sum(1).min() >= 0.99999
