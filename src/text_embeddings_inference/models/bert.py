"""BERT (Devlin et al., arXiv:1810.04805): learned positions, token types, a norm after each half of a block."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ..errors import UnsupportedError
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
from ..ops.spec import Inputs, Ops, Rope, Value
from . import architecture
from .architecture import Architecture, table


class BlockArgs(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that describe the blocks; other architectures share them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12


class Args(BlockArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: bool = False

    def __post_init__(self) -> None:
        if self.is_decoder:
            raise UnsupportedError("config.json: `is_decoder` is true; only encoders are supported")


EMBEDDINGS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.type",
    "embeddings.LayerNorm": "embeddings.norm",
    "embeddings.position_ids": None,
    "embeddings.token_type_ids": None,
}

ATTENTION: Table = {
    "encoder.layer.{i}.attention.self.query": "layers.{i}.attention.query",
    "encoder.layer.{i}.attention.self.key": "layers.{i}.attention.key",
    "encoder.layer.{i}.attention.self.value": "layers.{i}.attention.value",
    "encoder.layer.{i}.attention.output.dense": "layers.{i}.attention.output",
}

LAYERS: Table = {
    **ATTENTION,
    "encoder.layer.{i}.attention.output.LayerNorm": "layers.{i}.attention_norm",
    "encoder.layer.{i}.intermediate.dense": "layers.{i}.up",
    "encoder.layer.{i}.output.dense": "layers.{i}.down",
    "encoder.layer.{i}.output.LayerNorm": "layers.{i}.output_norm",
}

TENSORS: Table = {**EMBEDDINGS, **LAYERS}

HEADS: Table = {
    "pooler.dense": "dense",
    "classifier": "out",
    "cls.predictions.transform.dense": "transform",
    "cls.predictions.transform.LayerNorm": "norm",
    "cls.predictions.decoder": "decoder",
    "cls.predictions": "",
    "cls.seq_relationship": None,
    "qa_outputs": None,
}


class Embeddings:
    """Word, position and token type, summed and normed."""

    def __init__(self, args: Args, p: Parameters, width: int, *, first_position: int = 0) -> None:
        self.word = Embedding(p / "word", args.vocab_size, width)
        rows = args.max_position_embeddings
        self.position = PositionEmbedding(p / "position", rows, width, first=first_position)
        self.type = Embedding(p / "type", args.type_vocab_size, width)
        self.norm = LayerNorm(p / "norm", width, args.layer_norm_eps)
        self.n_types = args.type_vocab_size

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        # With a single type, as in RoBERTa, the tokenizer's type ids mean nothing: every token has that type.
        types = self.type(ops, inputs.type_ids) if self.n_types > 1 else self.type.table
        x = ops.add(self.word(ops, inputs.input_ids), types)
        return self.norm(ops, ops.add(x, self.position(ops, inputs.layout)))


def blocks(args: BlockArgs, p: Parameters, rope: Rope | None = None) -> list[PostNormBlock]:
    """The encoder's blocks, one for each layer."""
    act = activation("hidden_act", args.hidden_act)
    return [block(args, act, p / i, rope) for i in range(args.num_hidden_layers)]


def block(args: BlockArgs, act: Activation, p: Parameters, rope: Rope | None = None) -> PostNormBlock:
    """One layer: attention, then a feed-forward network."""
    width, inner = args.hidden_size, args.intermediate_size
    attention = SelfAttention(p / "attention", width, Heads.of(width, args.num_attention_heads), rope=rope)
    return PostNormBlock(p, attention, FeedForward(p, width, inner, act), width, args.layer_norm_eps)


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    embeddings: Embeddings

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = Embeddings(args, p / "embeddings", args.hidden_size)
        self.layers = blocks(args, p / "layers")


class HeadArgs(architecture.Args, Protocol):
    """What the heads read, which other architectures share."""

    @property
    def hidden_act(self) -> str: ...

    @property
    def layer_norm_eps(self) -> float: ...


def classifier(args: architecture.Args, labels: int, p: Parameters) -> ClassificationHead:
    """BertForSequenceClassification's head; checkpoints without a pooler classify the first token itself."""
    return ClassificationHead(p, args.hidden_size, labels, activation("pooler", "tanh"), dense="dense.weight" in p)


def masked_lm(args: HeadArgs, word: Embedding, p: Parameters) -> MaskedLMHead:
    """BertForMaskedLM's head."""
    shape = (args.vocab_size, args.hidden_size)
    act = activation("hidden_act", args.hidden_act)
    return MaskedLMHead(p, args.hidden_size, word, shape, act, args.layer_norm_eps)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=table,
    prefixes=("bert.",),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=(
        "sentence-transformers/all-MiniLM-L6-v2",
        "BAAI/bge-base-en-v1.5",
        "intfloat/e5-base-v2",
        "mixedbread-ai/mxbai-embed-large-v1",
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "naver/splade-cocondenser-ensembledistil",
        "lightonai/colbertv2.0",
        "colbert-ir/colbertv2.0",
        "answerdotai/answerai-colbert-small-v1",
    ),
)
