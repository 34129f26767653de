"""Qwen3 (Yang et al., arXiv:2505.09388).

Differs from Llama: norms of each head of queries and keys, heads of a width of their own, and some layers may have a
window. Embedding models made of it (voyage-4-nano) may project every token.
"""

from __future__ import annotations

from functools import partial

from ..errors import CheckpointError
from ..nn.layers import ATTENTION, Linear, PreNormBlock, RMSNorm, SelfAttention
from ..nn.parameters import Parameters, Table
from ..ops.spec import Inputs, Ops, Rope, Value
from . import llama
from .architecture import Architecture, computed
from .llama import Decoder, Size, block
from .qwen2 import WindowedArgs


class Args(WindowedArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    head_dim: Size | None = 128
    attention_bias: bool = False
    num_labels: Size | None = None
    """The width after the projection, where there is one."""


TENSORS: Table = {
    **llama.TENSORS,
    "layers.{i}.self_attn.q_norm": "layers.{i}.attention.query_norm",
    "layers.{i}.self_attn.k_norm": "layers.{i}.attention.key_norm",
    "linear": "projection",
}


class Model(Decoder):
    """Token ids `[*]` -> hidden states `[*, D]`, or `[*, width]` after a projection."""

    def __init__(self, args: Args, p: Parameters) -> None:
        norm = partial(RMSNorm, eps=args.rms_norm_eps)

        def make_block(p: Parameters, rope: Rope) -> PreNormBlock:
            width, biases = args.hidden_size, ATTENTION if args.attention_bias else ()
            attention = SelfAttention(p / "attention", width, args.heads, rope=rope, biases=biases, head_norm=norm)
            return block(args, p, attention)

        super().__init__(args, p, make_block)
        self.width = args.hidden_size
        self.projection: Linear | None = None
        if "projection.weight" in p:
            if args.num_labels is None:
                raise CheckpointError(
                    "tensor `linear.weight` projects every token, but config.json has no `num_labels`"
                )
            self.width = args.num_labels
            self.projection = Linear(p / "projection", args.hidden_size, self.width, bias=False)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = super().__call__(ops, inputs)
        return self.projection(ops, x) if self.projection else x


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    width=lambda args, model: model.width,
    classifier=llama.classifier,
    checkpoints=(
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen/Qwen3-Reranker-0.6B",
        "voyageai/voyage-4-nano",
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls",
    ),
)
