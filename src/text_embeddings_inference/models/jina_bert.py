"""JinaBERT v2 (Günther et al., arXiv:2310.19923), `jinaai/jina-bert-implementation`.

Differs from BERT: ALiBi in both directions instead of learned positions, and a gated feed-forward network.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from ..errors import UnsupportedError
from ..nn.layers import ACTIVATIONS, GatedFeedForward, Heads, PostNormBlock, SelfAttention, TypedEmbedding
from ..nn.parameters import Parameters, Table, split
from ..ops.spec import AttentionSpec, Inputs, Ops, Value
from . import bert
from .architecture import Architecture, computed

GATES = {"geglu": ACTIVATIONS["gelu"], "reglu": ACTIVATIONS["relu"]}
"""`feed_forward_type` -> activation of the gate; `hidden_act` has no say in it."""


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    position_embedding_type: Literal["alibi"]
    feed_forward_type: Literal["geglu", "reglu"]
    is_decoder: bool = False

    def __post_init__(self) -> None:
        if self.is_decoder:
            raise UnsupportedError("config.json: `is_decoder` is true; only encoders are supported")


TENSORS: Table = {
    **bert.EMBEDDINGS,
    **bert.ATTENTION,
    "encoder.layer.{i}.attention.output.LayerNorm": "layers.{i}.attention_norm",
    "encoder.layer.{i}.mlp.gated_layers": split("layers.{i}", "gate", "up"),
    "encoder.layer.{i}.mlp.wo": "layers.{i}.down",
    "encoder.layer.{i}.mlp.layernorm": "layers.{i}.output_norm",
}


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """The slope of each head (Press et al., arXiv:2108.12409).

    2^(-8k/N), k = 1 ... N, if N is a power of two; else those of the next lower power, then every second one of twice
    that power.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    between = [2 ** (-4 * k / power) for k in range(1, 2 * power + 1, 2)]
    return tuple((slopes + between)[:heads])


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        width = args.hidden_size
        self.embeddings = TypedEmbedding(
            p / "embeddings", args.vocab_size, args.type_vocab_size, width, args.layer_norm_eps
        )
        self.spec = AttentionSpec(alibi=alibi_slopes(args.num_attention_heads))
        self.layers = [self.block(args, p / "layers" / i) for i in range(args.num_hidden_layers)]

    def block(self, args: Args, p: Parameters) -> PostNormBlock:
        """One layer: attention, then a gated feed-forward network."""
        width, act = args.hidden_size, GATES[args.feed_forward_type]
        attention = SelfAttention(p / "attention", width, Heads.of(width, args.num_attention_heads))
        feed_forward = GatedFeedForward(p, width, args.intermediate_size, act, biases=("down",))
        return PostNormBlock(p, attention, feed_forward, width, args.layer_norm_eps)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.embeddings(ops, inputs)
        for layer in self.layers:
            x = layer(ops, x, self.spec, inputs.layout)
        return x


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("bert.",),
    heads=bert.HEADS,
    classifier=bert.classifier,
    checkpoints=(
        "jinaai/jina-embeddings-v2-base-en",
        "jinaai/jina-embeddings-v2-small-en",
        "jinaai/jina-reranker-v1-turbo-en",
    ),
)
