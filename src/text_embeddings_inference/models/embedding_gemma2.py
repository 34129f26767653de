"""EmbeddingGemma 2's text part (Google, 2026).

Differs from Gemma 3: norms multiply by their weight alone, and there is one without a weight of each head of values;
scores are not scaled; tokens see ahead, in a window to either side; layers may differ in their heads; each layer adds a
third part, gated by a projection of the embeddings, and multiplies all by a number; every token is projected in the
end. The parts that see and hear are left out.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from ..errors import UnsupportedError
from ..nn.layers import ATTENTION, Activation, Embedding, GatedFeedForward, Linear, RMSNorm, SelfAttention
from ..nn.layers import activation as read_activation
from ..nn.parameters import Parameters, Table
from ..ops.spec import AttentionSpec, Inputs, Layout, Ops, Rope, Value
from .architecture import Architecture, computed
from .llama import DecoderArgs, Size
from .qwen2 import LayerType

BASES = {"full_attention": 1_000_000.0, "sliding_attention": 10_000.0}
"""Of the rotation, where config.json has none."""


class LayerArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of `per_layer_config`: what a layer has in place of the model's own."""

    head_dim: Size | None = None
    num_key_value_heads: Size | None = None


WIDE = LayerArgs(head_dim=512, num_key_value_heads=1)
"""Of layers without a window, where config.json has no `per_layer_config`."""


class Args(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read, which are those of its `text_config`."""

    head_dim: Size = 256
    num_key_value_heads: Size = 2
    hidden_act: str = msgspec.field(default="gelu_pytorch_tanh", name="hidden_activation")
    attention_bias: bool = False
    sliding_window: Size = 512
    layer_types: list[LayerType] | None = None
    per_layer_config: dict[str, LayerArgs] | None = None
    hidden_size_per_layer_input: Size = 512
    embedding_dim: Size = 768

    def kinds(self) -> list[LayerType]:
        """The kind of each layer; the last one has no window, whatever `layer_types` says, as in Transformers."""
        layers = range(self.num_hidden_layers)
        kinds: list[LayerType] = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in layers]
        if self.layer_types is not None:
            kinds = self.layer_types
        if len(kinds) != len(layers):
            raise UnsupportedError(f"config.json: `layer_types` has {len(kinds)} rows for {len(layers)} layers")
        return [*kinds[:-1], "full_attention"]

    def layer(self, number: int, kind: LayerType) -> Args:
        """What holds for one layer."""
        if self.per_layer_config is None:
            own = WIDE if kind == "full_attention" else LayerArgs()
        else:
            own = self.per_layer_config.get(str(number), LayerArgs())
        changes: dict[str, Any] = {
            key: value for key, value in msgspec.structs.asdict(own).items() if value is not None
        }
        return msgspec.structs.replace(self, **changes)

    def rope_of(self, kind: LayerType) -> Rope:
        """The rotation of the heads of a layer of this kind."""
        return self.rope(layer_type=kind, theta=BASES[kind])

    def spec_of(self, kind: LayerType) -> AttentionSpec:
        """What a token sees: in a window of n all that is up to n tokens away."""
        return AttentionSpec(scale=1.0, window=self.sliding_window if kind == "sliding_attention" else None)


TENSORS: Table = {
    "embed_tokens": "embed",
    "ple.per_layer_model_projection": "layer_inputs.projection",
    "ple.per_layer_projection_norm": "layer_inputs.norm",
    "layers.{i}.input_layernorm": "layers.{i}.attention_norm",
    "layers.{i}.self_attn.q_proj": "layers.{i}.attention.query",
    "layers.{i}.self_attn.k_proj": "layers.{i}.attention.key",
    "layers.{i}.self_attn.v_proj": "layers.{i}.attention.value",
    "layers.{i}.self_attn.o_proj": "layers.{i}.attention.output",
    "layers.{i}.self_attn.q_norm": "layers.{i}.attention.query_norm",
    "layers.{i}.self_attn.k_norm": "layers.{i}.attention.key_norm",
    "layers.{i}.post_attention_layernorm": "layers.{i}.attention_output_norm",
    "layers.{i}.pre_feedforward_layernorm": "layers.{i}.feed_forward_norm",
    "layers.{i}.mlp.gate_proj": "layers.{i}.feed_forward.gate",
    "layers.{i}.mlp.up_proj": "layers.{i}.feed_forward.up",
    "layers.{i}.mlp.down_proj": "layers.{i}.feed_forward.down",
    "layers.{i}.post_feedforward_layernorm": "layers.{i}.feed_forward_output_norm",
    "layers.{i}.ple_block.per_layer_input_gate": "layers.{i}.mixer.gate",
    "layers.{i}.ple_block.per_layer_projection": "layers.{i}.mixer.projection",
    "layers.{i}.ple_block.post_per_layer_input_norm": "layers.{i}.mixer.norm",
    "layers.{i}.layer_scalar": "layers.{i}.factor.weight",
    "norm": "norm",
    "embedding_projection": "projection",
}


class Attention(SelfAttention):
    """Self-attention whose values are normed by head, without a weight."""

    def __init__(self, p: Parameters, args: Args, rope: Rope) -> None:
        def norm(p: Parameters, width: int) -> RMSNorm:
            return RMSNorm(p, width, args.rms_norm_eps)

        biases = ATTENTION if args.attention_bias else ()
        super().__init__(p, args.hidden_size, args.heads, rope=rope, biases=biases, head_norm=norm)
        self.ones = p.constant(np.ones(args.heads.width, np.float32))
        self.eps = args.rms_norm_eps

    def project(self, ops: Ops, x: Value) -> tuple[Value, Value, Value]:
        q, k, v = super().project(ops, x)
        return q, k, ops.rms_norm(v, self.ones, self.eps)


class Mixer:
    """projection(act(gate(x)) * a layer's input), normed: `[*, D]` -> `[*, D]`."""

    def __init__(self, p: Parameters, args: Args, act: Activation) -> None:
        width, inner = args.hidden_size, args.hidden_size_per_layer_input
        self.gate = Linear(p / "gate", width, inner, bias=False)
        self.projection = Linear(p / "projection", inner, width, bias=False)
        self.norm = RMSNorm(p / "norm", width, args.rms_norm_eps)
        self.act = act

    def __call__(self, ops: Ops, x: Value, layer_input: Value) -> Value:
        gated = ops.mul(self.act(ops, self.gate(ops, x)), layer_input)
        return self.norm(ops, self.projection(ops, gated))


class Block:
    """One layer: attention, a gated feed-forward network and the layer's input, each normed before it is added."""

    def __init__(self, p: Parameters, args: Args, rope: Rope) -> None:
        act = read_activation("hidden_activation", args.hidden_act)
        self.attention = Attention(p / "attention", args, rope)
        self.feed_forward = GatedFeedForward(p / "feed_forward", args.hidden_size, args.intermediate_size, act)
        names = ("attention_norm", "attention_output_norm", "feed_forward_norm", "feed_forward_output_norm")
        self.norms = [RMSNorm(p / name, args.hidden_size, args.rms_norm_eps) for name in names]
        self.mixer = Mixer(p / "mixer", args, act)
        self.factor = float(p.array("factor.weight", (1,))[0])

    def __call__(self, ops: Ops, x: Value, layer_input: Value, spec: AttentionSpec, layout: Layout) -> Value:
        before, after, fed_before, fed_after = self.norms
        x = ops.add(x, after(ops, self.attention(ops, before(ops, x), spec, layout)))
        x = ops.add(x, fed_after(ops, self.feed_forward(ops, fed_before(ops, x))))
        x = ops.add(x, self.mixer(ops, x, layer_input))
        return ops.mul(x, self.factor)


class LayerInputs:
    """What each layer gets of the embeddings: `[*, D]` -> L times `[*, P]`."""

    def __init__(self, p: Parameters, args: Args) -> None:
        self.layers, self.width = args.num_hidden_layers, args.hidden_size_per_layer_input
        self.projection = Linear(p / "projection", args.hidden_size, self.layers * self.width, bias=False)
        self.norm = RMSNorm(p / "norm", self.width, args.rms_norm_eps)
        self.scale = args.hidden_size**-0.5

    def __call__(self, ops: Ops, x: Value) -> list[Value]:
        projected = ops.mul(self.projection(ops, x), self.scale)
        normed = ops.merge(self.norm(ops, ops.heads(projected, self.layers)))
        return ops.split(normed, [self.width] * self.layers)


class Model:
    """Token ids `[*]` -> projected hidden states `[*, embedding_dim]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        self.embed = Embedding(p / "embed", args.vocab_size, args.hidden_size)
        self.scale = math.sqrt(args.hidden_size)
        self.inputs = LayerInputs(p / "layer_inputs", args)
        self.layers, ropes = [], dict[tuple[LayerType, int], Rope]()
        for i, kind in enumerate(args.kinds()):
            own = args.layer(i, kind)
            rope = ropes.setdefault((kind, own.head_dim), own.rope_of(kind))
            self.layers.append((Block(p / "layers" / i, own, rope), own.spec_of(kind)))
        self.norm = RMSNorm(p / "norm", args.hidden_size, args.rms_norm_eps)
        self.projection = Linear(p / "projection", args.hidden_size, args.embedding_dim, bias=False)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = ops.mul(self.embed(ops, inputs.input_ids), self.scale)
        for (layer, spec), layer_input in zip(self.layers, self.inputs(ops, x), strict=True):
            x = layer(ops, x, layer_input, spec, inputs.layout)
        return self.projection(ops, self.norm(ops, x))


PARTS = ("vision_tower", "audio_tower", "embed_vision", "embed_audio")
"""Of the model that are for images and sound."""

ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.language_model.", "language_model.", "model."),
    towers=tuple(f"{at}{part}." for at in ("model.", "") for part in PARTS),
    width=lambda args, model: args.embedding_dim,
    overflows_float16=True,
    checkpoints=("google/embeddinggemma-2",),
)
