"""Qwen3 as in perplexity-ai/pplx-embed: no causal mask, and vectors of whole numbers from -127 to 127.

From the model's own code: `modeling.py`, and Int8TanhQuantizer in `st_quantize.py`. Vectors of tokens stay as they are.
"""

from __future__ import annotations

from typing import Literal

from ..ops.spec import Ops, Value
from . import llama, qwen3
from .architecture import Architecture, computed


class Args(qwen3.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    is_causal: Literal[False] = False
    use_bidirectional_attention: Literal[True] | None = True


def finish(ops: Ops, pooled: Value) -> Value:
    """round(127 tanh(x)): `[B, D]` -> `[B, D]`."""
    return ops.round(ops.mul(ops.tanh(pooled), 127.0))


ARCHITECTURE = Architecture(
    args=Args,
    model=qwen3.Model,
    tensors=qwen3.TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    width=lambda args, model: model.width,
    finish=finish,
    quantizes=True,
    checkpoints=("perplexity-ai/pplx-embed-v1-0.6b",),
)
