"""Gemma 3's text model (Gemma Team, arXiv:2503.19786), as in EmbeddingGemma.

Differs from Llama: embeddings are scaled; norms multiply by 1 + weight, come before and after each half of a block, and
there are some of each head of queries and keys; most layers have a window, and rotate with a base of their own.
"""

from __future__ import annotations

import math
from functools import partial

import msgspec

from ..errors import UnsupportedError
from ..nn.layers import ATTENTION, Embedding, GatedFeedForward, PreNormBlock, RMSNorm, SelfAttention, activation
from ..nn.parameters import Parameters, Table
from ..nn.rotary import Positive
from ..ops.spec import AttentionSpec, Inputs, Ops, Rope, Value
from . import llama
from .architecture import Architecture, computed
from .llama import DecoderArgs, Size
from .qwen2 import LayerType


class Args(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read. Without `layer_types` the last of every `pattern` layers has no window."""

    head_dim: Size = 256
    hidden_act: str = msgspec.field(default="gelu_pytorch_tanh", name="hidden_activation")
    attention_bias: bool = False
    query_pre_attn_scalar: Positive = 256
    sliding_window: Size | None = 4096
    layer_types: list[LayerType] | None = None
    sliding_window_pattern: Size = 6
    saved_pattern: Size | None = msgspec.field(default=None, name="_sliding_window_pattern")
    rope_local_base_freq: Positive = 10_000.0
    attn_logit_softcapping: float | None = None

    def __post_init__(self) -> None:
        if self.attn_logit_softcapping is not None:
            problem = f"`attn_logit_softcapping` is {self.attn_logit_softcapping}; only null is supported"
            raise UnsupportedError(f"config.json: {problem}")

    def kinds(self) -> list[LayerType]:
        """The kind of each layer."""
        pattern, layers = self.saved_pattern or self.sliding_window_pattern, range(self.num_hidden_layers)
        kinds: list[LayerType] = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in layers]
        if self.layer_types is not None:
            kinds = self.layer_types
        if len(kinds) != len(layers):
            raise UnsupportedError(f"config.json: `layer_types` has {len(kinds)} rows for {len(layers)} layers")
        return kinds

    def spec_of(self, kind: LayerType) -> AttentionSpec:
        """What a token sees: in a window of n itself and n - 1 before it, or n / 2 to either side."""
        causal, window = self.is_causal and not self.use_bidirectional_attention, None
        if kind == "sliding_attention":
            if self.sliding_window is None:
                raise UnsupportedError("config.json: `sliding_window` is null, but there are sliding layers")
            window = self.sliding_window - 1 if causal else self.sliding_window // 2
        return AttentionSpec(scale=1 / math.sqrt(self.query_pre_attn_scalar), causal=causal, window=window)

    def rope_of(self, kind: LayerType) -> Rope:
        """The rotation of a kind of layer; `rope_theta` and `rope_scaling` are those of layers without a window."""
        if kind == "full_attention":
            return self.rope(layer_type=kind, theta=1_000_000.0)
        own = msgspec.structs.replace(self, rope_theta=None, rope_scaling=None)
        return own.rope(layer_type=kind, theta=self.rope_local_base_freq)


TENSORS: Table = {
    **llama.TENSORS,
    "layers.{i}.self_attn.q_norm": "layers.{i}.attention.query_norm",
    "layers.{i}.self_attn.k_norm": "layers.{i}.attention.key_norm",
    "layers.{i}.post_attention_layernorm": "layers.{i}.attention_output_norm",
    "layers.{i}.pre_feedforward_layernorm": "layers.{i}.feed_forward_norm",
    "layers.{i}.post_feedforward_layernorm": "layers.{i}.feed_forward_output_norm",
}


def block(args: Args, p: Parameters, rope: Rope) -> PreNormBlock:
    """One layer, whose halves are normed once more before they are added."""
    width, biases = args.hidden_size, ATTENTION if args.attention_bias else ()
    norm = partial(RMSNorm, eps=args.rms_norm_eps, offset=1.0)
    attention = SelfAttention(p / "attention", width, args.heads, rope=rope, biases=biases, head_norm=norm)
    attended_norm = norm(p / "attention_output_norm", width)
    act = activation("hidden_activation", args.hidden_act)
    feed_forward = GatedFeedForward(p / "feed_forward", width, args.intermediate_size, act)
    fed_norm = norm(p / "feed_forward_output_norm", width)
    return PreNormBlock(
        norm(p / "attention_norm", width),
        lambda ops, x, spec, layout: attended_norm(ops, attention(ops, x, spec, layout)),
        norm(p / "feed_forward_norm", width),
        lambda ops, x: fed_norm(ops, feed_forward(ops, x)),
    )


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        kinds = args.kinds()
        ropes = {kind: args.rope_of(kind) for kind in set(kinds)}
        self.embed = Embedding(p / "embed", args.vocab_size, args.hidden_size)
        self.scale = math.sqrt(args.hidden_size)
        self.layers = [(block(args, p / "layers" / i, ropes[kind]), args.spec_of(kind)) for i, kind in enumerate(kinds)]
        self.norm = RMSNorm(p / "norm", args.hidden_size, args.rms_norm_eps, offset=1.0)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = ops.mul(self.embed(ops, inputs.input_ids), self.scale)
        for layer, spec in self.layers:
            x = layer(ops, x, spec, inputs.layout)
        return self.norm(ops, x)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    classifier=llama.classifier,
    overflows_float16=True,
    checkpoints=("google/embeddinggemma-300m",),
)
