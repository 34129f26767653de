"""Gemma 3's text model (Gemma Team, arXiv:2503.19786), as in EmbeddingGemma.

Differs from Gemma 2: norms of each head of queries and keys; scores are not bounded; most layers have a window, and
rotate with a base of their own.
"""

from __future__ import annotations

from functools import partial

import msgspec

from ..errors import UnsupportedError
from ..nn.parameters import Parameters, Table
from ..nn.rotary import Positive
from ..ops.spec import AttentionSpec, Rope
from . import gemma2, llama
from .architecture import Architecture, computed
from .gemma2 import GemmaArgs, GemmaModel, block
from .llama import Size
from .qwen2 import LayerType


class Args(GemmaArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    sliding_window_pattern: Size = 6
    saved_pattern: Size | None = msgspec.field(default=None, name="_sliding_window_pattern")
    rope_local_base_freq: Positive = 10_000.0
    attn_logit_softcapping: float | None = None

    def __post_init__(self) -> None:
        if self.attn_logit_softcapping is not None:
            problem = f"`attn_logit_softcapping` is {self.attn_logit_softcapping}; only null is supported"
            raise UnsupportedError(f"config.json: {problem}")

    def kinds(self) -> list[LayerType]:
        """The kind of each layer."""
        return self.layer_kinds(self.saved_pattern or self.sliding_window_pattern)

    def spec_of(self, kind: LayerType) -> AttentionSpec:
        """What a token sees: in a window of n itself and n - 1 before it, or n / 2 to either side."""
        causal, window = self.is_causal and not self.use_bidirectional_attention, None
        if kind == "sliding_attention":
            window = self.window - 1 if causal else self.window // 2
        return AttentionSpec(scale=self.scale, causal=causal, window=window)

    def rope_of(self, kind: LayerType) -> Rope:
        """The rotation of a kind of layer; `rope_theta` and `rope_scaling` are those of layers without a window."""
        if kind == "full_attention":
            return self.rope(layer_type=kind, theta=1_000_000.0)
        own = msgspec.structs.replace(self, rope_theta=None, rope_scaling=None)
        return own.rope(layer_type=kind, theta=self.rope_local_base_freq)


TENSORS: Table = {
    **gemma2.TENSORS,
    "layers.{i}.self_attn.q_norm": "layers.{i}.attention.query_norm",
    "layers.{i}.self_attn.k_norm": "layers.{i}.attention.key_norm",
}


class Model(GemmaModel):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        kinds = args.kinds()
        makers = {kind: partial(block, args, rope=args.rope_of(kind), head_norms=True) for kind in set(kinds)}
        super().__init__(args, p, [(makers[kind], args.spec_of(kind)) for kind in kinds])


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    classifier=llama.classifier,
    overflows_float16=True,
    checkpoints=("google/embeddinggemma-300m",),
)
