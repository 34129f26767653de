"""JinaBERT v2 for code, `jinaai/jina-bert-v2-qk-post-norm`.

Differs from JinaBERT: queries and keys are normed over the whole width, attention's input is added twice, with a norm
after each, and the gate is the second half.
"""

from __future__ import annotations

from ..nn.layers import Attention, LayerNorm, PackedGatedFeedForward, PostNormBlock
from ..nn.parameters import Parameters, Table
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
    "encoder.layer.{i}.mlp.up_gated_layer": "layers.{i}.gated",
    "encoder.layer.{i}.mlp.down_layer": "layers.{i}.down",
    "encoder.layer.{i}.layer_norm_2": "layers.{i}.output_norm",
}


class NormedAttention(Attention):
    """Attention over normed queries and keys, its sum with its input normed."""

    def __init__(self, p: Parameters, width: int, heads: int, eps: float) -> None:
        super().__init__(p, width, heads)
        self.query_norm = LayerNorm(p / "query_norm", width, eps)
        self.key_norm = LayerNorm(p / "key_norm", width, eps)
        self.output_norm = LayerNorm(p / "output_norm", width, eps)

    def __call__(self, ops: Ops, x: Value, spec: AttentionSpec, layout: Layout) -> Value:
        q = self.query_norm(ops, self.query(ops, x))
        k = self.key_norm(ops, self.key(ops, x))
        q, k, v = (ops.heads(part, self.n_heads) for part in (q, k, self.value(ops, x)))
        attended = self.output(ops, ops.merge(ops.attention(q, k, v, spec, layout)))
        return self.output_norm(ops, ops.add(attended, x))


class Model(jina_bert.Model):
    """Token ids `[*]` -> hidden states `[*, D]`."""

    def block(self, args: Args, p: Parameters) -> PostNormBlock:
        """One layer: attention, then a gated feed-forward network, whose second half is the gate."""
        width, eps = args.hidden_size, args.layer_norm_eps
        attention = NormedAttention(p / "attention", width, args.num_attention_heads, eps)
        act = GATES[args.feed_forward_type]
        feed_forward = PackedGatedFeedForward(p, width, args.intermediate_size, act, gate_first=False)
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
