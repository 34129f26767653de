"""Llama (Touvron et al., arXiv:2302.13971; Llama 3: Grattafiori et al., arXiv:2407.21783).

Differs from BERT: rotary positions and no token types; root-mean-square norms before each half of a block and at the
end; a gated feed-forward network; several heads of queries share one of keys and values; a token sees only what is
before it, unless config.json says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

from msgspec import Meta

from ..errors import UnsupportedError
from ..nn.heads import ScoreHead
from ..nn.layers import (
    ATTENTION,
    GATED,
    Embedding,
    GatedFeedForward,
    Heads,
    PreNormBlock,
    RMSNorm,
    SelfAttention,
    activation,
)
from ..nn.parameters import Parameters, Table
from ..nn.rotary import RopeArgs, read_rope
from ..ops.spec import AttentionSpec, Inputs, Ops, Rope, Value
from ..types import Pooling
from .architecture import Architecture, computed

Size = Annotated[int, Meta(gt=0)]


class DecoderArgs(RopeArgs, frozen=True, kw_only=True):
    """The keys of config.json that all decoders share."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    is_causal: bool = True
    """Transformers' own key."""
    use_bidirectional_attention: bool | None = None
    """The key of embedding models that were made of decoders."""

    @property
    def heads(self) -> Heads:
        """Raises UnsupportedError where they do not divide each other, or the width."""
        queries = self.num_attention_heads
        if self.head_dim is None and self.hidden_size % queries:
            problem = f"`num_attention_heads` is {queries}, which does not divide a width of {self.hidden_size}"
            raise UnsupportedError(f"config.json: {problem}")
        return Heads(queries, self.num_key_value_heads or queries, self.head_dim or self.hidden_size // queries)

    def rope(self, *, layer_type: str | None = None, theta: float = 10_000.0) -> Rope:
        """The rotation of a kind of layer, see `read_rope`; all channels of a head rotate."""
        width = self.heads.width
        rope = read_rope(self, width, layer_type=layer_type, theta=theta)
        if (rotated := 2 * len(rope.inverse_frequencies)) < width:
            problem = f"`partial_rotary_factor` has {rotated} of a head's {width} channels rotate; only 1 is supported"
            raise UnsupportedError(f"config.json: {problem}")
        return rope

    def spec(self, window: int | None = None) -> AttentionSpec:
        """What a token sees, counted as Transformers counts (`masking_utils.py`): a window of n ends with the token
        itself, and where it sees ahead it sees n tokens to either side.
        """
        causal = self.is_causal and not self.use_bidirectional_attention
        return AttentionSpec(causal=causal, window=window - 1 if window is not None and causal else window)

    def specs(self) -> list[AttentionSpec]:
        """What a token sees, layer by layer."""
        return [self.spec()] * self.num_hidden_layers


class Args(DecoderArgs, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    attention_bias: bool = False
    mlp_bias: bool = False


TENSORS: Table = {
    "embed_tokens": "embed",
    "layers.{i}.input_layernorm": "layers.{i}.attention_norm",
    "layers.{i}.self_attn.q_proj": "layers.{i}.attention.query",
    "layers.{i}.self_attn.k_proj": "layers.{i}.attention.key",
    "layers.{i}.self_attn.v_proj": "layers.{i}.attention.value",
    "layers.{i}.self_attn.o_proj": "layers.{i}.attention.output",
    "layers.{i}.self_attn.rotary_emb.inv_freq": None,
    "layers.{i}.post_attention_layernorm": "layers.{i}.feed_forward_norm",
    "layers.{i}.mlp.gate_proj": "layers.{i}.feed_forward.gate",
    "layers.{i}.mlp.up_proj": "layers.{i}.feed_forward.up",
    "layers.{i}.mlp.down_proj": "layers.{i}.feed_forward.down",
    "norm": "norm",
}

HEADS: Table = {"lm_head": "lm_head", "score": "out"}


def block(args: DecoderArgs, p: Parameters, attention: SelfAttention, *, biases: Collection[str] = ()) -> PreNormBlock:
    """One layer: attention, then a gated feed-forward network. biases: of that, see `GatedFeedForward`."""
    width, act = args.hidden_size, activation("hidden_act", args.hidden_act)
    feed_forward = GatedFeedForward(p / "feed_forward", width, args.intermediate_size, act, biases=biases)
    norms = [RMSNorm(p / name, width, args.rms_norm_eps) for name in ("attention_norm", "feed_forward_norm")]
    return PreNormBlock(norms[0], attention, norms[1], feed_forward)


class Decoder:
    """Token ids `[*]` -> hidden states `[*, D]`; architectures differ in their blocks."""

    def __init__(
        self, args: DecoderArgs, p: Parameters, make_block: Callable[[Parameters, Rope], PreNormBlock]
    ) -> None:
        """make_block: makes the block with these parameters and this rotation."""
        rope = args.rope()
        self.embed = Embedding(p / "embed", args.vocab_size, args.hidden_size)
        self.layers = [(make_block(p / "layers" / i, rope), spec) for i, spec in enumerate(args.specs())]
        self.norm = RMSNorm(p / "norm", args.hidden_size, args.rms_norm_eps)

    def __call__(self, ops: Ops, inputs: Inputs) -> Value:
        x = self.embed(ops, inputs.input_ids)
        for layer, spec in self.layers:
            x = layer(ops, x, spec, inputs.layout)
        return self.norm(ops, x)


class Model(Decoder):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def __init__(self, args: Args, p: Parameters) -> None:
        def make_block(p: Parameters, rope: Rope) -> PreNormBlock:
            biases = ATTENTION if args.attention_bias else ()
            attention = SelfAttention(p / "attention", args.hidden_size, args.heads, rope=rope, biases=biases)
            return block(args, p, attention, biases=GATED if args.mlp_bias else ())

        super().__init__(args, p, make_block)


def classifier(args: DecoderArgs, labels: int, p: Parameters) -> ScoreHead:
    """Transformers' GenericForSequenceClassification: the last token's logits."""
    return ScoreHead(p, args.hidden_size, labels, Pooling.LAST_TOKEN)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=HEADS,
    classifier=classifier,
)
