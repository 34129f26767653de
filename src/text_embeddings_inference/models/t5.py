"""T5's encoder (Raffel et al., arXiv:1910.10683).

Differs from BERT: no positions but a bias per head and relative distance, shared by all layers; norms without mean and
bias, before each half of a block and after the last one; no biases; scores are not scaled.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..nn.layers import (
    Embedding,
    FeedForward,
    GatedFeedForward,
    Heads,
    PreNormBlock,
    RMSNorm,
    SelfAttention,
    TokenWise,
    activation,
    relative_bias,
)
from ..nn.parameters import Parameters, Table
from ..ops.spec import AttentionSpec, Inputs, Ops, Value
from .architecture import Architecture, computed


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int = msgspec.field(name="d_model")
    head_width: int = msgspec.field(name="d_kv")
    intermediate_size: int = msgspec.field(name="d_ff")
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"


TENSORS: Table = {
    "shared": "word",
    "encoder.embed_tokens": None,  # `shared` under a second name
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "relative",
    "encoder.block.{i}.layer.0.SelfAttention.q": "layers.{i}.attention.query",
    "encoder.block.{i}.layer.0.SelfAttention.k": "layers.{i}.attention.key",
    "encoder.block.{i}.layer.0.SelfAttention.v": "layers.{i}.attention.value",
    "encoder.block.{i}.layer.0.SelfAttention.o": "layers.{i}.attention.output",
    "encoder.block.{i}.layer.0.layer_norm": "layers.{i}.attention_norm",
    "encoder.block.{i}.layer.1.DenseReluDense.wi": "layers.{i}.up",
    "encoder.block.{i}.layer.1.DenseReluDense.wi_0": "layers.{i}.gate",
    "encoder.block.{i}.layer.1.DenseReluDense.wi_1": "layers.{i}.up",
    "encoder.block.{i}.layer.1.DenseReluDense.wo": "layers.{i}.down",
    "encoder.block.{i}.layer.1.layer_norm": "layers.{i}.output_norm",
    "encoder.final_layer_norm": "norm",
}


def block(args: Args, p: Parameters) -> PreNormBlock:
    """One layer: attention, then a feed-forward network, gated or not."""
    width, inner, eps = args.hidden_size, args.intermediate_size, args.layer_norm_epsilon
    heads = Heads(args.num_heads, args.num_heads, args.head_width)
    attention = SelfAttention(p / "attention", width, heads, biases=())
    feed_forward: TokenWise
    if args.feed_forward_proj == "gated-gelu":
        # The tanh approximation (T5Config sets `dense_act_fn` to `gelu_new`)
        feed_forward = GatedFeedForward(p, width, inner, activation("feed_forward_proj", "gelu_new"))
    else:
        feed_forward = FeedForward(p, width, inner, activation("feed_forward_proj", "relu"), bias=False)
    norms = RMSNorm(p / "attention_norm", width, eps), RMSNorm(p / "output_norm", width, eps)
    return PreNormBlock(norms[0], attention, norms[1], feed_forward)


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.word = Embedding(p / "word", args.vocab_size, args.hidden_size)
        buckets, reach = args.relative_attention_num_buckets, args.relative_attention_max_distance
        bias = relative_bias(p / "relative", buckets, args.num_heads, reach)
        self.spec = AttentionSpec(scale=1.0, bias=bias)
        self.layers = [block(args, p / "layers" / i) for i in range(args.num_layers)]
        self.norm = RMSNorm(p / "norm", args.hidden_size, args.layer_norm_epsilon)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.word(ops, inputs.input_ids)
        for layer in self.layers:
            x = layer(ops, x, self.spec, inputs.layout)
        return self.norm(ops, x)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    overflows_float16=True,
    checkpoints=(
        "sentence-transformers/sentence-t5-base",
        "sentence-transformers/gtr-t5-large",
        "hkunlp/instructor-large",
    ),
)
