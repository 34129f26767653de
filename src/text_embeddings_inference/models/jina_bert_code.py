"""JinaBERT v2 for code, `jinaai/jina-bert-v2-qk-post-norm`.

Differs from JinaBERT: queries and keys are normed over the whole width, attention's input is added twice, with a norm
after each, and the gate is the second half.
"""

from __future__ import annotations

from ..nn.layers import GatedFeedForward, Heads, LayerNorm, PostNormBlock, SelfAttention
from ..nn.parameters import Parameters, Table, split
from ..ops.spec import AttentionSpec, Layout, Ops, Value
from . import bert, jina_bert
from .architecture import Architecture, computed
from .jina_bert import GATES, Args

TENSORS: Table = {
    **bert.EMBEDDINGS,
    **bert.ATTENTION,
    "encoder.layer.{i}.attention.self.layer_norm_q": "layers.{i}.attention.query_norm",
    "encoder.layer.{i}.attention.self.layer_norm_k": "layers.{i}.attention.key_norm",
    "encoder.layer.{i}.attention.output.LayerNorm": "layers.{i}.attention.output_norm",
    "encoder.layer.{i}.layer_norm_1": "layers.{i}.attention_norm",
    "encoder.layer.{i}.mlp.up_gated_layer": split("layers.{i}", "up", "gate"),
    "encoder.layer.{i}.mlp.down_layer": "layers.{i}.down",
    "encoder.layer.{i}.layer_norm_2": "layers.{i}.output_norm",
}


class NormedAttention(SelfAttention):
    """Attention over normed queries and keys, its sum with its input normed."""

    def __init__(self, p: Parameters, width: int, heads: Heads, eps: float) -> None:
        super().__init__(p, width, heads)
        self.whole_query_norm = LayerNorm(p / "query_norm", width, eps)
        self.whole_key_norm = LayerNorm(p / "key_norm", width, eps)
        self.output_norm = LayerNorm(p / "output_norm", width, eps)

    def project(self, ops: Ops, x: Value) -> tuple[Value, Value, Value]:
        q, k = self.whole_query_norm(ops, self.query(ops, x)), self.whole_key_norm(ops, self.key(ops, x))
        q, k, v = (ops.heads(part, self.heads.queries) for part in (q, k, self.value(ops, x)))
        return q, k, v

    def __call__(self, ops: Ops, x: Value, spec: AttentionSpec, layout: Layout) -> Value:
        return self.output_norm(ops, ops.add(super().__call__(ops, x, spec, layout), x))


class Model(jina_bert.Model):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def block(self, args: Args, p: Parameters) -> PostNormBlock:
        """One layer: attention, then a gated feed-forward network."""
        width, eps = args.hidden_size, args.layer_norm_eps
        attention = NormedAttention(p / "attention", width, Heads.of(width, args.num_attention_heads), eps)
        act = GATES[args.feed_forward_type]
        feed_forward = GatedFeedForward(p, width, args.intermediate_size, act, biases=("down",))
        return PostNormBlock(p, attention, feed_forward, width, eps)


ARCHITECTURE = Architecture(
    args=Args,
    model=Model,
    tensors=TENSORS,
    positions=computed,
    prefixes=("bert.",),
    heads=bert.HEADS,
    classifier=bert.classifier,
    checkpoints=("jinaai/jina-embeddings-v2-base-code",),
)
