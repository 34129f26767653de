"""Llama without a causal mask, as in the remote code of nvidia/llama-embed-nemotron-8b.

The rerankers pool as config.json says, and divide their score by a temperature. Their cards put query and text into one
text (`question:... passage:...`) that is given to /predict; a pair given to /rerank is only joined by the tokenizer.
"""

from __future__ import annotations

from typing import Literal

from ..errors import UnsupportedError
from ..nn.heads import ScoreHead
from ..nn.parameters import Parameters
from ..nn.rotary import Positive
from ..ops.spec import Layout, Ops, Value
from ..types import Pooling
from . import llama
from .architecture import Architecture, computed

POOLINGS = {"avg": Pooling.MEAN, "cls": Pooling.CLS, "last": Pooling.LAST_TOKEN}


class Args(llama.Args, frozen=True, kw_only=True):
    """The keys of config.json that are read."""

    is_causal: Literal[False] = False
    use_bidirectional_attention: Literal[True] | None = True
    pooling: str = "avg"
    """Of classifiers; others pool as their modules say."""
    temperature: Positive = 1.0
    """Of classifiers."""


class Classifier(ScoreHead):
    """LlamaBidirectionalForSequenceClassification's head: logits of the pooled tokens, divided by the temperature."""

    def __init__(self, args: Args, labels: int, p: Parameters) -> None:
        if args.pooling not in POOLINGS:
            problem = f"`pooling` is {args.pooling!r}; supported are {', '.join(POOLINGS)}"
            raise UnsupportedError(f"config.json: {problem}")
        super().__init__(p, args.hidden_size, labels, POOLINGS[args.pooling])
        self.temperature = args.temperature

    def __call__(self, ops: Ops, x: Value, layout: Layout) -> Value:
        return ops.div(super().__call__(ops, x, layout), self.temperature)


ARCHITECTURE = Architecture(
    args=Args,
    model=llama.Model,
    tensors=llama.TENSORS,
    positions=computed,
    prefixes=("model.",),
    heads=llama.HEADS,
    classifier=Classifier,
    checkpoints=("nvidia/llama-embed-nemotron-8b", "nvidia/llama-nemotron-rerank-1b-v2"),
)
