"""Jina's own code for XLM-RoBERTa, `jinaai/xlm-roberta-flash-implementation`: jina-reranker-v2 and its like.

Differs from RoBERTa: queries, keys and values in one matrix; positions are a table's or rotary, as
`position_embedding_type` says. Adapters by task (`lora_adaptations`) are not supported.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..errors import UnsupportedError
from ..nn.layers import Encoder, TypedEmbedding
from ..nn.parameters import Parameters, Table
from ..nn.rotary import RopeArgs, read_rope
from . import bert, jina_embeddings_v3, roberta
from .architecture import Architecture

UNSUPPORTED = ("rotary_emb_scale_base", "rotary_emb_interleaved", "rotary_emb_dim", "lora_adaptations")
"""Keys that may only be false, null, 0 or empty."""

TABLE_KEYS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "layer_norm_eps"),
)
"""What RoBERTa's embeddings with a table of positions are made by."""


class Args(bert.BlockArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    max_position_embeddings: int
    position_embedding_type: Literal["absolute", "rotary"] = "rotary"
    rotary_emb_base: float = 10_000.0
    hidden_act: Literal["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"] = "gelu"
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: Annotated[int, Meta(ge=0)] = 1
    rotary_emb_scale_base: float | None = None
    rotary_emb_interleaved: bool = False
    rotary_emb_dim: int | None = None
    lora_adaptations: list[str] | None = None

    def __post_init__(self) -> None:
        for key in UNSUPPORTED:
            if value := getattr(self, key):
                found = f"config.json: `{key}` is {msgspec.json.encode(value).decode()}, which is not supported"
                hint = "take the model as Transformers saves it (jinaai/jina-embeddings-v3-hf)"
                raise UnsupportedError(found, hint=hint if key == "lora_adaptations" else None)

    @property
    def is_rotary(self) -> bool:
        """Whether there is no table of positions."""
        return self.position_embedding_type == "rotary"

    @property
    def first_position(self) -> int:
        """Row of the first token in the table of positions."""
        return self.pad_token_id + 1


TENSORS: Table = {**jina_embeddings_v3.TENSORS, "embeddings.position_embeddings": "embeddings.position"}
TENSORS |= {"embeddings.position_ids": None}


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        rope = None
        self.embeddings: bert.Embeddings | TypedEmbedding
        if args.is_rotary:
            positions = RopeArgs(max_position_embeddings=args.max_position_embeddings, rope_theta=args.rotary_emb_base)
            rope = read_rope(positions, args.hidden_size // args.num_attention_heads)
            self.embeddings = TypedEmbedding(
                p / "embeddings", args.vocab_size, args.type_vocab_size, args.hidden_size, args.layer_norm_eps
            )
        else:
            table = bert.Args(**{key: getattr(args, key) for key in TABLE_KEYS})
            self.embeddings = bert.Embeddings(
                table, p / "embeddings", args.hidden_size, first_position=args.first_position
            )
        self.layers = bert.blocks(args, p / "layers", rope)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=lambda args: None if args.is_rotary else args.first_position,
    prefixes=("roberta.",),
    heads=roberta.HEADS,
    classifier=roberta.classifier,
    masked_lm=lambda args, model, p: roberta.masked_lm(args, model.embeddings.word, p),
    checkpoints=("jinaai/jina-reranker-v2-base-multilingual",),
)
