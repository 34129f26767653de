"""The text part of Qwen3-VL (arXiv:2511.21631), as in Qwen3-VL-Embedding.

Differs from Qwen3: nothing, for texts alone. Its rotary positions have three axes, time, height and width, which are
the same number where there is neither image nor video, however channels are shared out among them. The part that sees
is left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..ops.spec import Rope
from . import llama, qwen3
from .architecture import Architecture, computed
from .llama import Size

AXES = ("mrope_section", "mrope_interleaved")
"""Keys of rope's settings that share channels out among the axes."""


class Args(qwen3.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read, which are those of its `text_config`."""

    num_key_value_heads: Size | None = 32

    def rope(self, *, layer_type: str | None = None, theta: float = 500_000.0) -> Rope:
        scaling, parameters = _one_axis(self.rope_scaling), _one_axis(self.rope_parameters)
        single = msgspec.structs.replace(self, rope_scaling=scaling, rope_parameters=parameters)
        return super(Args, single).rope(layer_type=layer_type, theta=theta)


def _one_axis(settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """The settings of rope for texts alone. Files of older models call the plain rotation `mrope`."""
    if settings is None:
        return None
    plain = {key: "default" for key in ("rope_type", "type") if settings.get(key) == "mrope"}
    return {key: value for key, value in settings.items() if key not in AXES} | plain


ARCHITECTURE = Architecture(
    args=Args,
    model=qwen3.Model,
    tensors=qwen3.TENSORS,
    positions=computed,
    prefixes=("model.language_model.", "language_model.model.", "language_model.", "model."),
    towers=("model.visual.", "visual."),
    heads=llama.HEADS,
    width=lambda args, model: model.width,
    classifier=llama.classifier,
    checkpoints=("Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Embedding-8B"),
)
