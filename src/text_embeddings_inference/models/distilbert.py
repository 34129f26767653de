"""DistilBERT (Sanh et al., arXiv:1910.01108).

Differs from BERT: no token types, its own names for config keys and tensors, a norm epsilon fixed at 1e-12, ReLU in the
classifier's head.
"""

from __future__ import annotations

import msgspec

from ..nn.heads import ClassificationHead, MaskedLMHead
from ..nn.layers import (
    Activation,
    Embedding,
    Encoder,
    FeedForward,
    Heads,
    LayerNorm,
    PositionEmbedding,
    PostNormBlock,
    SelfAttention,
    activation,
)
from ..nn.parameters import Parameters, Table
from ..ops.spec import Inputs, Ops, Value
from .architecture import Architecture, table

EPS = 1e-12


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int = msgspec.field(name="dim")
    num_hidden_layers: int = msgspec.field(name="n_layers")
    num_attention_heads: int = msgspec.field(name="n_heads")
    intermediate_size: int = msgspec.field(name="hidden_dim")
    max_position_embeddings: int
    activation: str = "gelu"


_LAYERS: Table = {
    "{i}.attention.q_lin": "attention.query",
    "{i}.attention.k_lin": "attention.key",
    "{i}.attention.v_lin": "attention.value",
    "{i}.attention.out_lin": "attention.output",
    "{i}.sa_layer_norm": "attention_norm",
    "{i}.ffn.lin1": "up",
    "{i}.ffn.lin2": "down",
    "{i}.output_layer_norm": "output_norm",
}

TENSORS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.LayerNorm": "embeddings.norm",
    "embeddings.position_ids": None,
    **{f"transformer.layer.{name}": f"layers.{{i}}.{target}" for name, target in _LAYERS.items()},
    **{f"encoder.layer.{name}": f"layers.{{i}}.{target}" for name, target in _LAYERS.items()},
}

HEADS: Table = {
    "pre_classifier": "dense",
    "classifier": "out",
    "vocab_transform": "transform",
    "vocab_layer_norm": "norm",
    "vocab_projector": "decoder",
    "qa_outputs": None,
}


class Embeddings:
    """Word and position, summed and normed."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.word = Embedding(p / "word", args.vocab_size, args.hidden_size)
        self.position = PositionEmbedding(p / "position", args.max_position_embeddings, args.hidden_size)
        self.norm = LayerNorm(p / "norm", args.hidden_size, EPS)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        positions = self.position(ops, inputs.layout)
        return self.norm(ops, ops.add(self.word(ops, inputs.input_ids), positions))


def block(args: Args, act: Activation, p: Parameters) -> PostNormBlock:
    """One layer: attention, then a feed-forward network."""
    width, inner = args.hidden_size, args.intermediate_size
    attention = SelfAttention(p / "attention", width, Heads.of(width, args.num_attention_heads))
    return PostNormBlock(p, attention, FeedForward(p, width, inner, act), width, EPS)


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    embeddings: Embeddings

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = Embeddings(args, p / "embeddings")
        act = activation("activation", args.activation)
        self.layers = [block(args, act, p / "layers" / i) for i in range(args.num_hidden_layers)]


def classifier(args: Args, labels: int, p: Parameters) -> ClassificationHead:
    """DistilBertForSequenceClassification's head."""
    return ClassificationHead(p, args.hidden_size, labels, activation("classifier", "relu"))


def masked_lm(args: Args, word: Embedding, p: Parameters) -> MaskedLMHead:
    """DistilBertForMaskedLM's head."""
    act = activation("activation", args.activation)
    return MaskedLMHead(p, args.hidden_size, word, (args.vocab_size, args.hidden_size), act, EPS)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=table,
    prefixes=("distilbert.",),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=(
        "sentence-transformers/msmarco-distilbert-base-v4",
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "opensearch-project/opensearch-neural-sparse-encoding-doc-v2-distill",
        "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill",
    ),
)
