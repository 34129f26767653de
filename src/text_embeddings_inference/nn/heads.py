"""Heads: what stands behind a model's hidden states when they are not pooled as they are.

Letters: `D` model, `V` vocabulary; `*` is `B, S` (padded) or `T` (packed).
"""

from __future__ import annotations

import numpy as np

from ..ops.spec import Layout, Ops, Value
from ..types import Float32Array, Pooling
from .layers import Activation, Embedding, LayerNorm, Linear
from .parameters import Parameters


class ClassificationHead:
    """The first token's logits: an optional `dense` with its activation, then `out`: `[*, D]` -> `[B, labels]`."""

    def __init__(self, p: Parameters, width: int, labels: int, act: Activation, *, dense: bool = True) -> None:
        self.dense = Linear(p / "dense", width, width) if dense else None
        self.out = Linear(p / "out", width, labels)
        self.act = act

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        x = ops.pool(x, Pooling.CLS, layout)
        return self.out(ops, self.act(ops, self.dense(ops, x)) if self.dense else x)


class ScoreHead:
    """Logits of a pooled vector, without a bias: `[*, D]` -> `[B, labels]`."""

    def __init__(self, p: Parameters, width: int, labels: int, pooling: Pooling) -> None:
        self.out = Linear(p / "out", width, labels, bias=False)
        self.pooling = pooling

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        return self.out(ops, ops.pool(x, self.pooling, layout))


class MaskedLMHead:
    """Logits over the vocabulary for each token: `[*, D]` -> `[*, V]`; the decoder may be the word embedding itself."""

    def __init__(self, p: Parameters, width: int, tied: Embedding, table: tuple[int, int], act: Activation, eps: float):
        vocabulary, inner = table
        self.transform = Linear(p / "transform", width, inner)
        self.norm = LayerNorm(p / "norm", inner, eps)
        self.decoder = p.tensor("decoder.weight", table) if "decoder.weight" in p else tied.table
        self.bias = p.tensor("bias" if "bias" in p else "decoder.bias", (vocabulary,))
        self.act = act

    def __call__(self, ops: Ops, x: Value) -> Value:
        return ops.linear(self.norm(ops, self.act(ops, self.transform(ops, x))), self.decoder, self.bias)


class AnswerHead:
    """The last token's logit of one answer, or of one less that of another: `[*, D]` -> `[B, 1]`.

    Of the vocabulary's matrix only the rows of the answers are kept: there are no logits `[*, V]`.
    """

    def __init__(self, p: Parameters, rows: Float32Array, cap: float | None = None, scale: float = 1.0) -> None:
        """rows: `[1, D]`, or `[2, D]` for a difference; cap: each logit x becomes cap * tanh(x / cap)."""
        signs = np.array([[1, -1]], np.float32)[:, : len(rows)] * np.float32(scale)
        self.cap = cap
        self.rows = p.constant(rows if cap else signs @ rows)
        self.signs = p.constant(signs)

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        logits = ops.linear(ops.pool(x, Pooling.LAST_TOKEN, layout), self.rows)
        if self.cap is None:
            return logits
        return ops.linear(ops.mul(ops.tanh(ops.mul(logits, 1 / self.cap)), self.cap), self.signs)
