"""Ministral 3 (Mistral AI, 2025), as in Nemotron 3 Embed.

Differs from Mistral: no window unless config.json has one, and queries grow with their position, beyond the length that
the model was trained for before it was extended.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec

from ..errors import UnsupportedError
from ..nn.layers import PreNormBlock, SelfAttention
from ..nn.parameters import Parameters
from ..ops.spec import Growth, Rope
from . import mistral
from .architecture import Architecture, computed
from .llama import HEADS, TENSORS, Decoder, Size, block, classifier

BETA, ORIGINAL = "llama_4_scaling_beta", "original_max_position_embeddings"
OWN_KEYS = (BETA, "max_position_embeddings")
"""Keys of rope's settings that say nothing of the rotation: Transformers writes the model's length there too."""

DEFAULT_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    ORIGINAL: 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    BETA: 0.1,
}
"""Where config.json has none (Transformers' `Ministral3Config`)."""


class Args(mistral.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    head_dim: Size | None = 128
    num_key_value_heads: Size | None = 8
    rms_norm_eps: float = 1e-5
    sliding_window: Size | None = None

    @property
    def _settings(self) -> dict[str, Any]:
        return self.rope_scaling or self.rope_parameters or DEFAULT_ROPE

    def rope(self, *, layer_type: str | None = None, theta: float = 1_000_000.0) -> Rope:
        settings = {key: value for key, value in self._settings.items() if key not in OWN_KEYS}
        plain = msgspec.structs.replace(self, rope_scaling=None, rope_parameters=settings)
        return super(Args, plain).rope(layer_type=layer_type, theta=theta)

    def query_rope(self, rope: Rope) -> Rope:
        """The rotation of the queries. Raises UnsupportedError for a growth that is no number, or of no length."""
        beta, trained = self._settings.get(BETA), self._settings.get(ORIGINAL)
        if beta is None:
            return rope
        if not isinstance(beta, int | float) or isinstance(beta, bool) or not 0 <= beta < math.inf:
            raise UnsupportedError(f"config.json: rope's `{BETA}` should be a number from 0 on, is {beta!r}")
        if not isinstance(trained, int) or isinstance(trained, bool) or trained <= 0:
            raise UnsupportedError(
                f"config.json: rope's `{BETA}` needs `{ORIGINAL}`, tokens above 0; it is {trained!r}"
            )
        return replace(rope, growth=Growth(float(beta), trained))


class Model(Decoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        query_rope = args.query_rope(args.rope())

        def make_block(p: Parameters, rope: Rope) -> PreNormBlock:
            attention = SelfAttention(
                p / "attention", args.hidden_size, args.heads, rope=rope, query_rope=query_rope, biases=()
            )
            return block(args, p, attention)

        super().__init__(args, p, make_block)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=HEADS,
    classifier=classifier,
    checkpoints=("nvidia/Nemotron-3-Embed-1B-BF16", "nvidia/Nemotron-3-Embed-8B-BF16"),
)
