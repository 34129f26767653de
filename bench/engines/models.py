"""Models with random weights, as large as those that people use: the config.json of a fixture, with other numbers.

Blocks are alike, so a few of them show what all cost; tables of embeddings are cut short where nothing is multiplied
with them. Speed does not depend on the weights' values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from text_embeddings_inference.checkpoint import Checkpoint, Weights, open_checkpoint
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.nn.parameters import Parameters
from text_embeddings_inference.types import Pooling

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures" / "models"
LONGEST = 512
ROWS = 2000
"""Of a table of embeddings that is only looked up in."""
SPREAD = 0.02


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's size."""

    fixture: str
    """Whose config.json is taken."""
    about: str
    """What of it is particular."""
    config: dict[str, Any]
    """What is set in it."""
    pooling: Pooling | None = None
    """None: the fixture's."""


def _encoder(width: int = 768, inner: int = 3072, layers: int = 4, **others: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    positions = {"max_position_embeddings": LONGEST, "vocab_size": ROWS}
    return {"num_attention_heads": width // 64, **sizes, **positions, **others}


SHAPES = {
    "MiniLM": Shape("bert", "BERT, 384 wide", _encoder(384, 1536, 6, num_attention_heads=12)),
    "BERT-base": Shape("bert", "BERT, 768 wide", _encoder()),
    "MPNet-base": Shape("mpnet", "relative bias", _encoder(max_position_embeddings=LONGEST + 2)),
    "DeBERTa-base": Shape(
        "deberta-v2-reranker",
        "disentangled attention",
        _encoder(position_buckets=256, pooler_hidden_size=768),
    ),
    "T5-base": Shape(
        "t5-encoder",
        "relative bias, RMS norms",
        {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 4, "vocab_size": ROWS},
    ),
    "ModernBERT-base": Shape(
        "modernbert",
        "windows, rotations, gates",
        _encoder(inner=1152, local_attention=128, layer_types=["full_attention", *["sliding_attention"] * 3]),
    ),
    "Jina-base": Shape("jina-bert", "ALiBi, gates", _encoder()),
    "Nomic MoE": Shape(
        "nomic-bert-moe",
        "8 experts in every other block",
        {"n_embd": 768, "n_inner": 3072, "n_head": 12, "n_layer": 4, "num_experts": 8, "n_positions": LONGEST}
        | {"max_trained_positions": LONGEST, "vocab_size": ROWS},
    ),
    "Qwen3-0.6B": Shape(
        "qwen3",
        "causal, grouped queries, rotations, gates",
        _encoder(1024, 3072, 4, num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_window_layers=4),
    ),
    "Gemma3-300M": Shape(
        "gemma3_text",
        "one key head, 256 wide, windows",
        _encoder(768, 1152, 3, num_attention_heads=3, head_dim=256, sliding_window=512, query_pre_attn_scalar=256),
    ),
    "SPLADE": Shape(
        "distilbert-splade",
        "DistilBERT, logits over 30,522 words",
        {"dim": 768, "hidden_dim": 3072, "n_heads": 12, "n_layers": 6, "vocab_size": 30522}
        | {"max_position_embeddings": LONGEST},
        Pooling.SPLADE,
    ),
}
"""By name, after published models."""


def checkpoint_of(shape: Shape) -> Checkpoint:
    """The fixture, with the shape's config.json and without weights: see `random_weights`."""
    fixture = open_checkpoint(FIXTURES / shape.fixture, facts_of, pooling=shape.pooling)
    config = fixture.config | shape.config
    return replace(fixture, config=config, max_input_length=LONGEST, dense=(), weights=Weights((), ()))


@contextmanager
def random_weights() -> Iterator[None]:
    """Within the block models get random parameters of the shapes they ask for, the same for the same name."""
    real = Parameters.stored

    def draw(self: Parameters, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if len(shape) == 1 and name.endswith("weight"):
            return np.ones(shape, np.float32)
        random = np.random.default_rng(crc32(f"{self._path}{name}".encode()))
        few = random.standard_normal(min(1 << 20, math.prod(shape)), np.float32) * np.float32(SPREAD)
        return np.resize(few, shape)

    Parameters.stored = draw  # type: ignore[method-assign]
    try:
        yield
    finally:
        Parameters.stored = real  # type: ignore[method-assign]
