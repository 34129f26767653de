"""Llama without a causal mask, as in the remote code of nvidia/llama-embed-nemotron-8b."""

from __future__ import annotations

from typing import Literal

from . import llama
from .llama import PREFIXES as PREFIXES
from .llama import TENSORS as TENSORS
from .llama import Model as Model

CHECKPOINTS = ("nvidia/llama-embed-nemotron-8b",)

HEADS = llama.HEADS


class Args(llama.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    is_causal: Literal[False] = False
    use_bidirectional_attention: Literal[True] | None = True
