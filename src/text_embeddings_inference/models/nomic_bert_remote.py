"""Nomic BERT in the spelling of its own code, `nomic-ai/nomic-bert-2048` (`n_embd` for `hidden_size`, and so on).

Differs from Transformers' Nomic BERT: the feed-forward network may be a plain one, there may be biases, and every n-th
layer may have a mixture of experts (Nussbaum & Duderstadt, arXiv:2502.07972).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..errors import UnsupportedError
from ..nn.layers import (
    ACTIVATIONS,
    ATTENTION,
    GATED,
    Activation,
    Encoder,
    Experts,
    FeedForward,
    GatedFeedForward,
    Heads,
    PostNormBlock,
    SelfAttention,
    TokenWise,
    TypedEmbedding,
)
from ..nn.parameters import Parameters, Table
from ..nn.rotary import RopeArgs, read_rope
from ..ops.spec import Rope
from . import nomic_bert
from .architecture import Architecture, computed

GATES: dict[str, Activation] = {
    "swiglu": ACTIVATIONS["silu"],
    "geglu": ACTIVATIONS["gelu"],
    "glu": ACTIVATIONS["sigmoid"],
}
"""`activation_function` -> activation of the gate. The other names mean GELU, always the exact one, and no gate."""

UNSUPPORTED = (
    "prenorm",
    "causal",
    "use_rms_norm",
    "parallel_block",
    "rotary_emb_interleaved",
    "rotary_emb_scale_base",
    "moe_normalize_expert_weights",
    "expert_choice_router",
    "num_shared_experts",
)
"""Keys that may only be false, null or 0."""


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    vocab_size: int
    hidden_size: int = msgspec.field(name="n_embd")
    num_hidden_layers: int = msgspec.field(name="n_layer")
    num_attention_heads: int = msgspec.field(name="n_head")
    intermediate_size: int = msgspec.field(name="n_inner")
    n_positions: int
    activation_function: Literal["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "swiglu", "geglu", "glu"]
    layer_norm_epsilon: float
    qkv_proj_bias: bool
    mlp_fc1_bias: bool
    mlp_fc2_bias: bool
    rotary_emb_fraction: float
    rotary_emb_base: float
    type_vocab_size: int = 2
    rotary_scaling_factor: float | None = None
    max_trained_positions: int = 2048
    num_experts: int = 0
    moe_every_n_layers: int = 0
    moe_top_k: int = 1
    prenorm: bool = False
    causal: bool = False
    use_rms_norm: bool = False
    parallel_block: bool = False
    rotary_emb_interleaved: bool = False
    rotary_emb_scale_base: float | None = None
    moe_normalize_expert_weights: bool = False
    expert_choice_router: bool = False
    num_shared_experts: int = 0

    def __post_init__(self) -> None:
        for key in UNSUPPORTED:
            if value := getattr(self, key):
                raise UnsupportedError(
                    f"config.json: `{key}` is {msgspec.json.encode(value).decode()}, which is not supported"
                )
        if self.rotary_emb_fraction <= 0:
            found = f"`rotary_emb_fraction` is {self.rotary_emb_fraction}"
            raise UnsupportedError(f"config.json: {found}: only rotary positions are supported")
        if self.num_experts and self.activation_function in GATES:
            found = f"`activation_function` is {self.activation_function!r}"
            raise UnsupportedError(f"config.json: {found}, which is not supported together with `num_experts`")
        if self.mlp_fc1_bias != self.mlp_fc2_bias:
            raise UnsupportedError("config.json: `mlp_fc1_bias` and `mlp_fc2_bias` differ; supported are both or none")

    def has_experts(self, i: int) -> bool:
        """Whether layer i has a mixture of experts."""
        return self.num_experts > 0 and self.moe_every_n_layers > 0 and i % self.moe_every_n_layers == 1


TENSORS: Table = {
    **nomic_bert.TENSORS,
    "encoder.layers.{i}.mlp.fc1": "layers.{i}.up",
    "encoder.layers.{i}.mlp.router.layer": "layers.{i}.router",
    "encoder.layers.{i}.mlp.experts": "layers.{i}.experts",
    "encoder.layers.{i}.mlp.experts.mlp.w1": "layers.{i}.experts.up.weight",
    "encoder.layers.{i}.mlp.experts.mlp.w2": "layers.{i}.experts.down.weight",
}


def block(args: Args, i: int, rope: Rope, p: Parameters) -> PostNormBlock:
    """Layer i: attention, then experts or a feed-forward network, gated or not."""
    width, inner, heads = args.hidden_size, args.intermediate_size, Heads.of(args.hidden_size, args.num_attention_heads)
    biases = ATTENTION if args.qkv_proj_bias else ()
    attention = SelfAttention(p / "attention", width, heads, rope=rope, biases=biases)
    gate, gelu = GATES.get(args.activation_function), ACTIVATIONS["gelu"]
    feed_forward: TokenWise
    if args.has_experts(i):
        feed_forward = Experts(p, width, inner, args.num_experts, args.moe_top_k, gelu)
    elif gate:
        feed_forward = GatedFeedForward(p, width, inner, gate, biases=GATED if args.mlp_fc1_bias else ())
    else:
        feed_forward = FeedForward(p, width, inner, gelu, bias=args.mlp_fc1_bias)
    return PostNormBlock(p, attention, feed_forward, width, args.layer_norm_epsilon)


class Model(Encoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        width, eps = args.hidden_size, args.layer_norm_epsilon
        self.embeddings = TypedEmbedding(p / "embeddings", args.vocab_size, args.type_vocab_size, width, eps)
        factor = args.rotary_scaling_factor
        positions = RopeArgs(
            max_position_embeddings=args.max_trained_positions,
            rope_theta=args.rotary_emb_base,
            partial_rotary_factor=args.rotary_emb_fraction,
            rope_scaling={"rope_type": "dynamic", "factor": factor} if factor else None,
        )
        rope = read_rope(positions, width // args.num_attention_heads)
        self.layers = [block(args, i, rope, p / "layers" / i) for i in range(args.num_hidden_layers)]


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=nomic_bert.ARCHITECTURE.prefixes,
    heads=nomic_bert.HEADS,
    checkpoints=(
        "nomic-ai/nomic-embed-text-v1.5",
        "nomic-ai/nomic-embed-text-v2-moe",
        "nomic-ai/CodeRankEmbed",
    ),
)
