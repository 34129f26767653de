"""Jina Embeddings v3 (Sturua et al., arXiv:2409.10173) as in Transformers: the model without its task adapters.

Differs from RoBERTa: rotary positions; queries, keys and values in one matrix.
"""

from __future__ import annotations

from ..nn.layers import Encoder, FeedForward, Heads, PostNormBlock, SelfAttention, TypedEmbedding, activation
from ..nn.parameters import QKV, Parameters, Table, split
from ..nn.rotary import RopeArgs, read_rope
from ..ops.spec import Rope
from .architecture import Architecture, computed

THETA = 20_000.0
"""The rotary base of a config that has none."""


class Args(RopeArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5


TENSORS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.token_type_embeddings": "embeddings.type",
    "emb_ln": "embeddings.norm",
    "encoder.layers.{i}.mixer.Wqkv": split("layers.{i}.attention", *QKV),
    "encoder.layers.{i}.mixer.out_proj": "layers.{i}.attention.output",
    "encoder.layers.{i}.norm1": "layers.{i}.attention_norm",
    "encoder.layers.{i}.mlp.fc1": "layers.{i}.up",
    "encoder.layers.{i}.mlp.fc2": "layers.{i}.down",
    "encoder.layers.{i}.norm2": "layers.{i}.output_norm",
}


def block(args: Args, rope: Rope, p: Parameters) -> PostNormBlock:
    """One layer: attention, then a feed-forward network."""
    width, act = args.hidden_size, activation("hidden_act", args.hidden_act)
    attention = SelfAttention(p / "attention", width, Heads.of(width, args.num_attention_heads), rope=rope)
    feed_forward = FeedForward(p, width, args.intermediate_size, act)
    return PostNormBlock(p, attention, feed_forward, width, args.layer_norm_eps)


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = TypedEmbedding(
            p / "embeddings", args.vocab_size, args.type_vocab_size, args.hidden_size, args.layer_norm_eps
        )
        rope = read_rope(args, args.hidden_size // args.num_attention_heads, theta=THETA)
        self.layers = [block(args, rope, p / "layers" / i) for i in range(args.num_hidden_layers)]


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("roberta.",),
    heads={"pooler.dense": None},
)
