"""GTE (Zhang et al., arXiv:2407.19669): Transformers' `gte` and `Alibaba-NLP/new-impl`.

Differs from BERT: rotary positions, a gated feed-forward network; there may be
no token types. The heads are BERT's.
"""

from __future__ import annotations

from typing import Literal

from ..errors import UnsupportedError
from ..nn.layers import Encoder, GatedFeedForward, Heads, PostNormBlock, SelfAttention, TypedEmbedding, activation
from ..nn.parameters import QKV, Parameters, Table, split
from ..nn.rotary import RopeArgs, read_rope
from ..ops.spec import Rope
from . import bert
from .architecture import Architecture, computed


class Args(RopeArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    type_vocab_size: int = 1
    layer_norm_type: Literal["layer_norm"] = "layer_norm"
    layer_norm_eps: float = 1e-12
    position_embedding_type: Literal["rope"] = "rope"
    pack_qkv: bool = True
    logn_attention_scale: bool = False

    def __post_init__(self) -> None:
        if not self.pack_qkv:
            raise UnsupportedError("config.json: `pack_qkv` is false; supported is true")
        if self.logn_attention_scale:
            raise UnsupportedError("config.json: `logn_attention_scale` is true; supported is false")


TENSORS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.token_type_embeddings": "embeddings.type",
    "embeddings.LayerNorm": "embeddings.norm",
    "embeddings.position_ids": None,
    "encoder.layer.{i}.attention.qkv_proj": split("layers.{i}.attention", *QKV),
    "encoder.layer.{i}.attention.o_proj": "layers.{i}.attention.output",
    "encoder.layer.{i}.attn_ln": "layers.{i}.attention_norm",
    "encoder.layer.{i}.mlp.up_gate_proj": split("layers.{i}", "up", "gate"),
    "encoder.layer.{i}.mlp.down_proj": "layers.{i}.down",
    "encoder.layer.{i}.mlp_ln": "layers.{i}.output_norm",
}

HEADS: Table = {
    "pooler.dense": "dense",
    "classifier": "out",
    "lm_head.dense": "transform",
    "lm_head.norm": "norm",
    "lm_head.decoder": "decoder",
    "qa_outputs": None,
}


def block(args: Args, rope: Rope, p: Parameters) -> PostNormBlock:
    """One layer: attention, then a gated feed-forward network."""
    width, act = args.hidden_size, activation("hidden_act", args.hidden_act)
    attention = SelfAttention(p / "attention", width, Heads.of(width, args.num_attention_heads), rope=rope)
    feed_forward = GatedFeedForward(p, width, args.intermediate_size, act, biases=("down",))
    return PostNormBlock(p, attention, feed_forward, width, args.layer_norm_eps)


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    embeddings: TypedEmbedding

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = TypedEmbedding(
            p / "embeddings", args.vocab_size, args.type_vocab_size, args.hidden_size, args.layer_norm_eps
        )
        rope = read_rope(args, args.hidden_size // args.num_attention_heads)
        self.layers = [block(args, rope, p / "layers" / i) for i in range(args.num_hidden_layers)]


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("new.", "gte."),
    heads=HEADS,
    classifier=bert.classifier,
    masked_lm=lambda args, model, p: bert.masked_lm(args, model.embeddings.word, p),
    checkpoints=(
        "Alibaba-NLP/gte-base-en-v1.5",
        "Alibaba-NLP/gte-multilingual-base",
        "Alibaba-NLP/gte-multilingual-reranker-base",
        "Snowflake/snowflake-arctic-embed-m-v2.0",
    ),
)
