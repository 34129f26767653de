"""MPNet (Song et al., arXiv:2004.09297).

Differs from BERT: no token types, RoBERTa's positions, and a bias per head and relative distance (T5's buckets),
shared by all layers.
"""

from __future__ import annotations

from ..nn.layers import Embedding, LayerNorm, PositionEmbedding, relative_bias
from ..nn.parameters import Parameters, Table
from ..ops.spec import AttentionSpec, Inputs, Ops, Value
from .architecture import Architecture
from .bert import BlockArgs, blocks
from .roberta import HEADS, classifier, masked_lm

MAX_DISTANCE = 128
FIRST_POSITION = 2
"""Whatever `pad_token_id` says (MPNetEmbeddings)."""


class Args(BlockArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    max_position_embeddings: int
    relative_attention_num_buckets: int = 32


TENSORS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.LayerNorm": "embeddings.norm",
    "embeddings.position_ids": None,
    "encoder.relative_attention_bias": "relative",
    "encoder.layer.{i}.attention.attn.q": "layers.{i}.attention.query",
    "encoder.layer.{i}.attention.attn.k": "layers.{i}.attention.key",
    "encoder.layer.{i}.attention.attn.v": "layers.{i}.attention.value",
    "encoder.layer.{i}.attention.attn.o": "layers.{i}.attention.output",
    "encoder.layer.{i}.attention.LayerNorm": "layers.{i}.attention_norm",
    "encoder.layer.{i}.intermediate.dense": "layers.{i}.up",
    "encoder.layer.{i}.output.dense": "layers.{i}.down",
    "encoder.layer.{i}.output.LayerNorm": "layers.{i}.output_norm",
}


class Embeddings:
    """Word and position, summed and normed."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.word = Embedding(p / "word", args.vocab_size, args.hidden_size)
        rows = args.max_position_embeddings
        self.position = PositionEmbedding(p / "position", rows, args.hidden_size, first=FIRST_POSITION)
        self.norm = LayerNorm(p / "norm", args.hidden_size, args.layer_norm_eps)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        positions = self.position(ops, inputs.layout)
        return self.norm(ops, ops.add(self.word(ops, inputs.input_ids), positions))


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = Embeddings(args, p / "embeddings")
        buckets, heads = args.relative_attention_num_buckets, args.num_attention_heads
        self.spec = AttentionSpec(bias=relative_bias(p / "relative", buckets, heads, MAX_DISTANCE))
        self.layers = blocks(args, p / "layers")

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.embeddings(ops, inputs)
        for layer in self.layers:
            x = layer(ops, x, self.spec, inputs.layout)
        return x


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=lambda args: FIRST_POSITION,
    prefixes=("mpnet.",),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=("sentence-transformers/all-mpnet-base-v2", "sentence-transformers/multi-qa-mpnet-base-dot-v1"),
)
