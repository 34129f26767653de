"""ModernBERT (Warner et al., arXiv:2412.13663).

Differs from BERT: rotary positions; most layers see a window only and rotate with a base of their own; norms before
each half of a block (but the very first) and after the last one; a gated feed-forward network; biases
only where the config asks for them; its head.
"""

from __future__ import annotations

from typing import Literal

from ..errors import UnsupportedError
from ..nn.layers import (
    ATTENTION,
    GATED,
    Embedding,
    GatedFeedForward,
    Heads,
    LayerNorm,
    Linear,
    PreNormBlock,
    SelfAttention,
    TokenWise,
    activation,
)
from ..nn.parameters import QKV, Parameters, Table, split
from ..nn.rotary import RopeArgs, read_rope
from ..ops.spec import AttentionSpec, Inputs, Layout, Ops, Value
from ..types import Pooling
from .architecture import Architecture, computed

LayerType = Literal["full_attention", "sliding_attention"]


class Args(RopeArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    layer_types: list[LayerType] | None = None
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160_000.0
    local_rope_theta: float | None = 10_000.0
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_activation: str = "gelu"
    classifier_bias: bool = False
    decoder_bias: bool = True

    def __post_init__(self) -> None:
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            found = f"`layer_types` has {len(self.layer_types)} entries"
            raise UnsupportedError(f"config.json: {found}, `num_hidden_layers` is {self.num_hidden_layers}")

    def layer_type(self, i: int) -> LayerType:
        """Whether layer i sees all tokens or those near by."""
        if self.layer_types is not None:
            return self.layer_types[i]
        return "sliding_attention" if i % self.global_attn_every_n_layers else "full_attention"

    def theta(self, layer_type: LayerType) -> float:
        """The rotary base where `rope_parameters` has none."""
        if layer_type == "sliding_attention" and self.local_rope_theta is not None:
            return self.local_rope_theta
        return self.global_rope_theta


TENSORS: Table = {
    "embeddings.tok_embeddings": "word",
    "embeddings.norm": "norm",
    "layers.{i}.attn_norm": "layers.{i}.attention_norm",
    "layers.{i}.attn.Wqkv": split("layers.{i}.attention", *QKV),
    "layers.{i}.attn.Wo": "layers.{i}.attention.output",
    "layers.{i}.mlp_norm": "layers.{i}.output_norm",
    "layers.{i}.mlp.Wi": split("layers.{i}", "gate", "up"),
    "layers.{i}.mlp.Wo": "layers.{i}.down",
    "final_norm": "final_norm",
}

HEADS: Table = {"head.dense": "dense", "head.norm": "norm", "classifier": "out", "decoder": "decoder"}


def norm(args: Args, p: Parameters) -> LayerNorm:
    return LayerNorm(p, args.hidden_size, args.norm_eps, bias=args.norm_bias)


class Layer:
    """One block, with the rotation and the window of its kind."""

    def __init__(self, args: Args, i: int, p: Parameters) -> None:
        layer_type = args.layer_type(i)
        width, heads, inner = args.hidden_size, args.num_attention_heads, args.intermediate_size
        rope = read_rope(args, width // heads, layer_type=layer_type, theta=args.theta(layer_type))
        biases = ATTENTION if args.attention_bias else ()
        attention = SelfAttention(p / "attention", width, Heads.of(width, heads), rope=rope, biases=biases)
        act = activation("hidden_activation", args.hidden_activation)
        feed_forward = GatedFeedForward(p, width, inner, act, biases=GATED if args.mlp_bias else ())
        # The first layer's input comes from a norm already.
        attention_norm: TokenWise = norm(args, p / "attention_norm") if i else lambda ops, x: x
        self.block = PreNormBlock(attention_norm, attention, norm(args, p / "output_norm"), feed_forward)
        self.spec = AttentionSpec(window=args.local_attention // 2 if layer_type == "sliding_attention" else None)

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        return self.block(ops, x, self.spec, layout)


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.word = Embedding(p / "word", args.vocab_size, args.hidden_size)
        self.norm = norm(args, p / "norm")
        self.layers = [Layer(args, i, p / "layers" / i) for i in range(args.num_hidden_layers)]
        self.final_norm = norm(args, p / "final_norm")

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.norm(ops, self.word(ops, inputs.input_ids))
        for layer in self.layers:
            x = layer(ops, x, inputs.layout)
        return self.final_norm(ops, x)


class Head:
    """A dense layer and a norm: `[*, D]` -> `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.dense = Linear(p / "dense", args.hidden_size, args.hidden_size, bias=args.classifier_bias)
        self.act = activation("classifier_activation", args.classifier_activation)
        self.norm = norm(args, p / "norm")

    def __call__(self, ops: Ops, x: Value) -> Value:
        return self.norm(ops, self.act(ops, self.dense(ops, x)))


class Classifier:
    """ModernBertForSequenceClassification's: pooled, through the head, to logits: `[*, D]` -> `[B, labels]`."""

    def __init__(self, args: Args, labels: int, p: Parameters) -> None:
        self.pooling = Pooling(args.classifier_pooling)
        self.head = Head(args, p)
        self.out = Linear(p / "out", args.hidden_size, labels)

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        return self.out(ops, self.head(ops, ops.pool(x, self.pooling, layout)))


class MaskedLM:
    """ModernBertForMaskedLM's: through the head to logits, `[*, D]` -> `[*, V]`; the decoder may be the embedding."""

    def __init__(self, args: Args, tied: Embedding, p: Parameters) -> None:
        self.head = Head(args, p)
        table = (args.vocab_size, args.hidden_size)
        self.decoder = p.tensor("decoder.weight", table) if "decoder.weight" in p else tied.table
        self.bias = p.tensor("decoder.bias", (args.vocab_size,)) if args.decoder_bias else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.linear(self.head(ops, x), self.decoder, self.bias)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=HEADS,
    classifier=Classifier,
    masked_lm=lambda args, model, p: MaskedLM(args, model.word, p),
    checkpoints=(
        "Alibaba-NLP/gte-modernbert-base",
        "nomic-ai/modernbert-embed-base",
        "Alibaba-NLP/gte-reranker-modernbert-base",
        "lightonai/GTE-ModernColBERT-v1",
        "mixedbread-ai/mxbai-edge-colbert-v0-17m",
    ),
)
