"""DeBERTa v2 and v3 (He et al., arXiv:2006.03654, arXiv:2111.09543).

Differs from BERT: attention by content and by distance, with vectors for distances (or for logarithmic buckets of them)
that all layers share and each layer projects; no positions at the input, mostly; a convolution beside the first layer
in some checkpoints; its heads.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..nn.heads import ClassificationHead, MaskedLMHead
from ..nn.layers import (
    Conv1d,
    Embedding,
    FeedForward,
    Heads,
    LayerNorm,
    Linear,
    PositionEmbedding,
    PostNormBlock,
    SelfAttention,
    activation,
)
from ..nn.parameters import Parameters, Table
from ..ops.spec import AttentionSpec, DisentangledSpec, Inputs, Layout, Ops, Value
from .architecture import Architecture

TERMS = ("c2p", "p2c")
"""Of `pos_att_type`: content to position (vectors of distances as keys) and position to content (as queries)."""


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-7
    type_vocab_size: int = 0
    embedding_size: int | None = None
    attention_head_size: int | None = None
    position_biased_input: bool = True
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    norm_rel_ebd: str = "none"
    share_att_key: bool = False
    pos_att_type: list[str] | str | None = None
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    pooler_hidden_size: int | None = None
    pooler_hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        head = self.hidden_size // self.num_attention_heads
        checks = {
            "attention_head_size": (self.attention_head_size in (None, head), f"{head}, the width of a head"),
            "pooler_hidden_size": (self.pooler_hidden_size in (None, self.hidden_size), f"{self.hidden_size}"),
            "pos_att_type": (set(self.terms) <= set(TERMS), " and ".join(TERMS)),
            "norm_rel_ebd": (set(_words(self.norm_rel_ebd)) <= {"none", "layer_norm"}, "none and layer_norm"),
            "position_buckets": (self.position_buckets <= 0 or self.position_buckets % 2 == 0, "even numbers"),
            "conv_kernel_size": (self.conv_kernel_size <= 0 or self.conv_kernel_size % 2 == 1, "odd numbers"),
        }
        for key, (holds, supported) in checks.items():
            if not holds:
                raise UnsupportedError(f"config.json: `{key}` is {getattr(self, key)!r}; supported is {supported}")

    @property
    def terms(self) -> list[str]:
        """`pos_att_type` as a list."""
        return _words(self.pos_att_type) if isinstance(self.pos_att_type, str) else self.pos_att_type or []

    @property
    def inner_embedding(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def reach(self) -> int:
        """Longest distance that is told from longer ones."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Half the number of vectors for distances."""
        return self.position_buckets if self.position_buckets > 0 else self.reach


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.lower().split("|") if word.strip()]


TENSORS: Table = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.type",
    "embeddings.embed_proj": "embeddings.project",
    "embeddings.LayerNorm": "embeddings.norm",
    "embeddings.position_ids": None,
    "encoder.rel_embeddings": "relative",
    "encoder.LayerNorm": "relative_norm",
    "encoder.conv.conv": "conv",
    "encoder.conv.LayerNorm": "conv_norm",
    "encoder.layer.{i}.attention.self.query_proj": "layers.{i}.attention.query",
    "encoder.layer.{i}.attention.self.key_proj": "layers.{i}.attention.key",
    "encoder.layer.{i}.attention.self.value_proj": "layers.{i}.attention.value",
    "encoder.layer.{i}.attention.self.pos_key_proj": "layers.{i}.attention.position_key",
    "encoder.layer.{i}.attention.self.pos_query_proj": "layers.{i}.attention.position_query",
    "encoder.layer.{i}.attention.output.dense": "layers.{i}.attention.output",
    "encoder.layer.{i}.attention.output.LayerNorm": "layers.{i}.attention_norm",
    "encoder.layer.{i}.intermediate.dense": "layers.{i}.up",
    "encoder.layer.{i}.output.dense": "layers.{i}.down",
    "encoder.layer.{i}.output.LayerNorm": "layers.{i}.output_norm",
}

HEADS: Table = {
    "pooler.dense": "dense",
    "classifier": "out",
    "cls.predictions.transform.dense": "transform",
    "cls.predictions.transform.LayerNorm": "norm",
    "cls.predictions.decoder": "decoder",
    "cls.predictions": "",
    "lm_predictions.lm_head.dense": "transform",
    "lm_predictions.lm_head.LayerNorm": "norm",
    "lm_predictions.lm_head": "",
    "mask_predictions.dense": None,
    "mask_predictions.LayerNorm": None,
    "mask_predictions.classifier": None,
    "qa_outputs": None,
}


class Embeddings:
    """Word, and position and token type where the model has them, summed, widened and normed."""

    def __init__(self, args: Args, p: Parameters) -> None:
        width = args.inner_embedding
        self.word = Embedding(p / "word", args.vocab_size, width)
        self.position = self._positions(args, p / "position")
        self.type = Embedding(p / "type", args.type_vocab_size, width) if args.type_vocab_size > 0 else None
        self.n_types = args.type_vocab_size
        widens = width != args.hidden_size
        self.project = Linear(p / "project", width, args.hidden_size, bias=False) if widens else None
        self.norm = LayerNorm(p / "norm", args.hidden_size, args.layer_norm_eps)

    @staticmethod
    def _positions(args: Args, p: Parameters) -> PositionEmbedding | None:
        if args.position_biased_input:
            return PositionEmbedding(p, args.max_position_embeddings, args.inner_embedding)
        if "weight" in p:  # of use to the decoder the model was trained with, which is stored with some checkpoints
            p.array("weight", (args.max_position_embeddings, args.inner_embedding))
        return None

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.word(ops, inputs.input_ids)
        if self.position:
            x = ops.add(x, self.position(ops, inputs.layout))
        if self.type:
            # With a single type the tokenizer's type ids mean nothing: every token has that type.
            x = ops.add(x, self.type(ops, inputs.type_ids) if self.n_types > 1 else self.type.table)
        return self.norm(ops, self.project(ops, x) if self.project else x)


class Distances:
    """The vectors for distances that all layers share, `[P, D]`, and the row of each distance (DisentangledSpec)."""

    def __init__(self, args: Args, p: Parameters) -> None:
        shape = (2 * args.span, args.hidden_size)
        self.vectors = (p / "relative").array("weight", shape)
        if "layer_norm" in _words(args.norm_rel_ebd):
            norm = p / "relative_norm"
            weight, bias = (norm.array(name, shape[1:]) for name in ("weight", "bias"))
            self.vectors = _layer_norm(self.vectors, args.layer_norm_eps) * weight + bias
        distances = np.arange(-args.reach, args.reach + 1)
        if args.position_buckets > 0:
            distances = log_bucket(distances, args.position_buckets, args.reach)
        self.rows = np.clip(distances + args.span, 0, 2 * args.span - 1).astype(np.int32)


class DisentangledAttention(SelfAttention):
    """Self-attention by content and distance: `[*, D]` -> `[*, D]`. Distances are projected once, at load."""

    def __init__(self, args: Args, p: Parameters, distances: Distances) -> None:
        width, heads = args.hidden_size, args.num_attention_heads
        super().__init__(p, width, Heads.of(width, heads))
        self.rows = distances.rows
        key, query = ("key", "query") if args.share_att_key else ("position_key", "position_query")

        def project(name: str) -> Value:
            """`[P, N, H]`"""
            weight, bias = (p / name).array("weight", (width, width)), (p / name).array("bias", (width,))
            return p.constant((distances.vectors @ weight.T + bias).reshape(-1, heads, width // heads))

        self.keys = project(key) if "c2p" in args.terms else None
        self.queries = project(query) if "p2c" in args.terms else None

    def __call__(self, ops: Ops, x: Value, spec: AttentionSpec, layout: Layout) -> Value:
        assert spec.scale is not None
        q, k, v = self.project(ops, x)
        disentangled = DisentangledSpec(spec.scale, self.rows, self.keys, self.queries)
        return self.output(ops, ops.merge(ops.disentangled_attention(q, k, v, disentangled, layout)))


class Convolution:
    """What the first block gives, and beside it a convolution of the embeddings, summed and normed."""

    def __init__(self, args: Args, p: Parameters) -> None:
        width = args.hidden_size
        self.conv = Conv1d(p / "conv", width, width, args.conv_kernel_size, groups=args.conv_groups)
        self.act = activation("conv_act", args.conv_act)
        self.norm = LayerNorm(p / "conv_norm", width, args.layer_norm_eps)

    def __call__(self, ops: Ops, embedded: Value, x: Value, layout: Layout) -> Value:
        return self.norm(ops, ops.add(x, self.act(ops, self.conv(ops, embedded, layout))))


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embeddings = Embeddings(args, p / "embeddings")
        distances = Distances(args, p) if args.relative_attention else None
        self.layers = [block(args, p / "layers" / i, distances) for i in range(args.num_hidden_layers)]
        self.convolution = Convolution(args, p) if args.conv_kernel_size > 0 else None
        # As many terms as `pos_att_type` has, and the product of contents; whether the attention is relative or not.
        summands = 1 + len(set(args.terms))
        self.spec = AttentionSpec(scale=1 / math.sqrt(args.hidden_size // args.num_attention_heads * summands))

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = embedded = self.embeddings(ops, inputs)
        for i, layer in enumerate(self.layers):
            x = layer(ops, x, self.spec, inputs.layout)
            if i == 0 and self.convolution:
                x = self.convolution(ops, embedded, x, inputs.layout)
        return x


def block(args: Args, p: Parameters, distances: Distances | None) -> PostNormBlock:
    act = activation("hidden_act", args.hidden_act)
    width = args.hidden_size
    attention = (
        SelfAttention(p / "attention", width, Heads.of(width, args.num_attention_heads))
        if distances is None
        else DisentangledAttention(args, p / "attention", distances)
    )
    feed_forward = FeedForward(p, width, args.intermediate_size, act)
    return PostNormBlock(p, attention, feed_forward, width, args.layer_norm_eps)


def classifier(args: Args, labels: int, p: Parameters) -> ClassificationHead:
    """DebertaV2ForSequenceClassification's head: the pooler, then the classifier."""
    act = activation("pooler_hidden_act", args.pooler_hidden_act)
    return ClassificationHead(p, args.hidden_size, labels, act)


def masked_lm(args: Args, word: Embedding, p: Parameters) -> MaskedLMHead:
    """The head of DebertaV2ForMaskedLM, by the older names of its tensors (`legacy`) or the newer ones."""
    table = (args.vocab_size, args.inner_embedding)
    act = activation("hidden_act", args.hidden_act)
    return MaskedLMHead(p, args.hidden_size, word, table, act, args.layer_norm_eps)


def log_bucket(distance: NDArray[np.int64], buckets: int, reach: int) -> NDArray[np.int64]:
    """The bucket of each signed distance up to `reach`: exact up close, then logarithmic.

    From DeBERTa (`make_log_bucket_position`); computed in float32, as the checkpoints were trained.
    """
    exact = buckets // 2
    if reach - 1 <= exact:  # no distance is far
        return distance
    far = np.maximum(np.abs(distance), exact).astype(np.float32) / np.float32(exact)
    share = np.log(far) / np.log(np.float32((reach - 1) / exact))
    bucket = np.ceil(share * np.float32(exact - 1)).astype(np.int64) + exact
    return np.where(np.abs(distance) <= exact, distance, np.sign(distance) * bucket)


def _layer_norm(x: NDArray[Any], eps: float) -> NDArray[np.float32]:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    normed: NDArray[np.float32] = (x - mean) / np.sqrt(variance + np.float32(eps))
    return normed


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=lambda args: 0 if args.position_biased_input else None,
    prefixes=("deberta.",),
    heads=HEADS,
    classifier=classifier,
    masked_lm=lambda args, model, p: masked_lm(args, model.embeddings.word, p),
    checkpoints=(
        "mixedbread-ai/mxbai-rerank-base-v1",
        "protectai/deberta-v3-base-prompt-injection-v2",
    ),
)
