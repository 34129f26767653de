"""Gemma (Gemma Team, arXiv:2403.08295).

Differs from Llama: embeddings are scaled by the square root of their width, and norms multiply by 1 + weight.
"""

from __future__ import annotations

import math

import msgspec

from ..nn.layers import ATTENTION, Embedding, GatedFeedForward, PreNormBlock, RMSNorm, SelfAttention, activation
from ..nn.parameters import Parameters
from ..ops.spec import Inputs, Ops, Value
from . import llama
from .architecture import Architecture, computed
from .llama import DecoderArgs, Size


class Args(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read. `hidden_act`, which old files have as `gelu`, says nothing: the
    activation is the other form of it, unless `hidden_activation` names one.
    """

    head_dim: Size = 256
    activation: str | None = msgspec.field(default=None, name="hidden_activation")
    attention_bias: bool = False


class Model:
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        width, rope, act = args.hidden_size, args.rope(), activation("hidden_activation", args.activation or TANH)
        biases = ATTENTION if args.attention_bias else ()

        def block(p: Parameters) -> PreNormBlock:
            norms = [
                RMSNorm(p / n, width, args.rms_norm_eps, offset=1.0) for n in ("attention_norm", "feed_forward_norm")
            ]
            attention = SelfAttention(p / "attention", width, args.heads, rope=rope, biases=biases)
            feed_forward = GatedFeedForward(p / "feed_forward", width, args.intermediate_size, act)
            return PreNormBlock(norms[0], attention, norms[1], feed_forward)

        self.embed = Embedding(p / "embed", args.vocab_size, width)
        self.scale = math.sqrt(width)
        self.layers = [(block(p / "layers" / i), spec) for i, spec in enumerate(args.specs())]
        self.norm = RMSNorm(p / "norm", width, args.rms_norm_eps, offset=1.0)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = ops.mul(self.embed(ops, inputs.input_ids), self.scale)
        for layer, spec in self.layers:
            x = layer(ops, x, spec, inputs.layout)
        return self.norm(ops, x)


TANH = "gelu_pytorch_tanh"

ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=llama.TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    classifier=llama.classifier,
    overflows_float16=True,
    checkpoints=("BAAI/bge-reranker-v2-gemma",),
)
