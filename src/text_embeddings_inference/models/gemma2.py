"""Gemma 2 (Gemma Team, arXiv:2408.00118).

Differs from Gemma: norms come before and after each half of a block; every second layer, the first one too, has a
window; the scale of attention has a key of its own; and its scores are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
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


class GemmaArgs(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that Gemma 2 and 3 share."""

    head_dim: Size = 256
    hidden_act: str = msgspec.field(default="gelu_pytorch_tanh", name="hidden_activation")
    attention_bias: bool = False
    query_pre_attn_scalar: Positive = 256
    sliding_window: Size | None = 4096
    layer_types: list[LayerType] | None = None

    def layer_kinds(self, pattern: int) -> list[LayerType]:
        """The kind of each layer; without `layer_types` the last of every `pattern` layers has no window."""
        layers = range(self.num_hidden_layers)
        kinds: list[LayerType] = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in layers]
        if self.layer_types is not None:
            kinds = self.layer_types
        if len(kinds) != len(layers):
            raise UnsupportedError(f"config.json: `layer_types` has {len(kinds)} rows for {len(layers)} layers")
        return kinds

    @property
    def window(self) -> int:
        """`sliding_window`. Raises UnsupportedError where it is null, which no model with sliding layers has."""
        if self.sliding_window is None:
            raise UnsupportedError("config.json: `sliding_window` is null, but there are sliding layers")
        return self.sliding_window

    @property
    def scale(self) -> float:
        """Of attention's scores."""
        return 1 / math.sqrt(self.query_pre_attn_scalar)


class Args(GemmaArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    attn_logit_softcapping: Positive | None = 50.0

    def spec_of(self, kind: LayerType) -> AttentionSpec:
        """What a token sees."""
        spec = self.spec(self.window if kind == "sliding_attention" else None)
        return replace(spec, scale=self.scale, cap=self.attn_logit_softcapping)


TENSORS: Table = {
    **llama.TENSORS,
    "layers.{i}.post_attention_layernorm": "layers.{i}.attention_output_norm",
    "layers.{i}.pre_feedforward_layernorm": "layers.{i}.feed_forward_norm",
    "layers.{i}.post_feedforward_layernorm": "layers.{i}.feed_forward_output_norm",
}


def block(args: GemmaArgs, p: Parameters, rope: Rope, *, head_norms: bool) -> PreNormBlock:
    """One layer, whose halves are normed once more before they are added; head_norms: so are queries and keys."""
    width, biases = args.hidden_size, ATTENTION if args.attention_bias else ()
    norm = partial(RMSNorm, eps=args.rms_norm_eps, offset=1.0)
    head_norm = norm if head_norms else None
    attention = SelfAttention(p / "attention", width, args.heads, rope=rope, biases=biases, head_norm=head_norm)
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


class GemmaModel:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(
        self, args: GemmaArgs, p: Parameters, blocks: list[tuple[Callable[[Parameters], PreNormBlock], AttentionSpec]]
    ) -> None:
        """blocks: what makes each layer of its parameters, and what a token sees there."""
        self.embed = Embedding(p / "embed", args.vocab_size, args.hidden_size)
        self.scale = math.sqrt(args.hidden_size)
        self.layers = [(make(p / "layers" / i), spec) for i, (make, spec) in enumerate(blocks)]
        self.norm = RMSNorm(p / "norm", args.hidden_size, args.rms_norm_eps, offset=1.0)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = ops.mul(self.embed(ops, inputs.input_ids), self.scale)
        for layer, spec in self.layers:
            x = layer(ops, x, spec, inputs.layout)
        return self.norm(ops, x)


class Model(GemmaModel):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        make = partial(block, args, rope=args.rope(), head_norms=False)
        super().__init__(args, p, [(make, args.spec_of(kind)) for kind in args.layer_kinds(2)])


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    classifier=llama.classifier,
    overflows_float16=True,
    checkpoints=("BAAI/bge-multilingual-gemma2",),
)
