"""Qwen3 as in perplexity-ai/pplx-embed: no causal mask, and vectors of whole numbers from -127 to 127.

From the model's own code: `modeling.py`, and Int8TanhQuantizer in `st_quantize.py`. Vectors of tokens stay as they are.
"""

from __future__ import annotations

from typing import Literal

from ..ops.spec import Ops, Value
from . import qwen3
from .qwen3 import HEADS as HEADS
from .qwen3 import PREFIXES as PREFIXES
from .qwen3 import TENSORS as TENSORS
from .qwen3 import Model as Model

CHECKPOINTS = ("perplexity-ai/pplx-embed-v1-0.6b",)


class Args(qwen3.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    is_causal: Literal[False] = False
    use_bidirectional_attention: Literal[True] | None = True


def finish(ops: Ops, pooled: Value) -> Value:
    """round(127 tanh(x)): `[B, D]` -> `[B, D]`."""
    return ops.round(ops.mul(ops.tanh(pooled), 127.0))
