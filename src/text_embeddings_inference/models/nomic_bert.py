"""Nomic BERT (Nussbaum et al., arXiv:2402.01613) as in Transformers.

Differs from BERT: rotary positions; queries, keys and values in one matrix; a gated feed-forward network; no biases but
those of the norms.
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..nn.layers import Encoder, GatedFeedForward, Heads, PostNormBlock, SelfAttention, TypedEmbedding, activation
from ..nn.parameters import QKV, Parameters, Table, split
from ..nn.rotary import RopeArgs, read_rope
from .architecture import Architecture, computed

THETA = 1000.0
"""The rotary base of a config that has none."""


class Args(RopeArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    head_dim: int | None = None
    hidden_act: str = "silu"
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.head_dim is not None and self.head_dim * self.num_attention_heads != self.hidden_size:
            wanted = f"{self.num_attention_heads} heads of a width of {self.hidden_size}"
            raise UnsupportedError(f"config.json: `head_dim` is {self.head_dim}, which does not make {wanted}")


TENSORS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.token_type_embeddings": "embeddings.type",
    "emb_ln": "embeddings.norm",
    "encoder.layers.{i}.attn.Wqkv": split("layers.{i}.attention", *QKV),
    "encoder.layers.{i}.attn.out_proj": "layers.{i}.attention.output",
    "encoder.layers.{i}.norm1": "layers.{i}.attention_norm",
    "encoder.layers.{i}.mlp.fc11": "layers.{i}.up",
    "encoder.layers.{i}.mlp.fc12": "layers.{i}.gate",
    "encoder.layers.{i}.mlp.fc2": "layers.{i}.down",
    "encoder.layers.{i}.norm2": "layers.{i}.output_norm",
}

HEADS: Table = {
    "pooler.dense": None,
    "cls.predictions": None,
    "cls.predictions.transform.dense": None,
    "cls.predictions.transform.layer_norm": None,
    "cls.predictions.transform.LayerNorm": None,
    "cls.predictions.decoder": None,
}


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        width, heads, eps = args.hidden_size, args.num_attention_heads, args.layer_norm_eps
        self.embeddings = TypedEmbedding(p / "embeddings", args.vocab_size, args.type_vocab_size, width, eps)
        rope = read_rope(args, width // heads, theta=THETA)
        act = activation("hidden_act", args.hidden_act)
        self.layers = []
        for layer in (p / "layers" / i for i in range(args.num_hidden_layers)):
            attention = SelfAttention(layer / "attention", width, Heads.of(width, heads), rope=rope, biases=())
            feed_forward = GatedFeedForward(layer, width, args.intermediate_size, act)
            self.layers.append(PostNormBlock(layer, attention, feed_forward, width, eps))


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("bert.", "nomic_bert."),
    heads=HEADS,
)
