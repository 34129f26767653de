"""EuroBERT (Boizard et al., arXiv:2503.05500): Llama's blocks without a causal mask; another head."""

from __future__ import annotations

from typing import Literal

from ..nn.layers import Linear, activation
from ..nn.parameters import Parameters, Table
from ..ops.spec import Layout, Ops, Value
from ..types import Pooling
from . import llama
from .architecture import Architecture, computed


class Args(llama.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    is_causal: Literal[False] = False
    rms_norm_eps: float = 1e-5
    classifier_pooling: Literal["bos", "mean", "late"] = "late"


HEADS: Table = {"lm_head": None, "dense": "dense", "classifier": "out"}


class Classifier:
    """EuroBertForSequenceClassification's head: `[*, D]` -> `[B, labels]`.

    The first token is pooled, or the mean, or the logits of all tokens.
    """

    def __init__(self, args: Args, labels: int, p: Parameters) -> None:
        self.dense = Linear(p / "dense", args.hidden_size, args.hidden_size)
        self.out = Linear(p / "out", args.hidden_size, labels)
        self.act = activation("classifier", "gelu")
        self.pooling = Pooling.CLS if args.classifier_pooling == "bos" else Pooling.MEAN
        self.pools_late = args.classifier_pooling == "late"

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        if not self.pools_late:
            x = ops.pool(x, self.pooling, layout)
        logits = self.out(ops, self.act(ops, self.dense(ops, x)))
        return ops.pool(logits, self.pooling, layout) if self.pools_late else logits


ARCHITECTURE = Architecture(
    args=Args,
    model=llama.Model,
    tensors=llama.TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=HEADS,
    classifier=Classifier,
    checkpoints=("EuroBERT/EuroBERT-210m",),
)
