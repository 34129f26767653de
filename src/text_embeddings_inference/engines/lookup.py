"""What needs no computing: a weight for each token that a text has (SparseStaticEmbedding), read from a table."""

from __future__ import annotations

import numpy as np

from ..models.build import Network, Results
from ..ops.spec import Inputs, Ops
from ..types import Batch, Encoding, Float32Array, Output
from .base import Capacity, Engine, EngineKind, Need, Offer, Refusal, check_lengths

BATCH_TOKENS = 4096
ROW_TOKENS = 32
"""A row of results, which has a place for each token of the vocabulary, costs as much as so many tokens."""


class LookupEngine:
    """Row b is the weight of each token that text b has, once however often it has it (see `base.Engine`)."""

    def __init__(self, need: Need, offer: Offer) -> None:
        self._weights: Float32Array = np.array(need.checkpoint.weights.array("weight"))
        self.dimensions = self.vocabulary = len(self._weights)
        self.longest = need.checkpoint.longest
        self.cores = offer.threads
        self.capacity = Capacity(offer.streams, need.settings.limits.max_batch_tokens or BATCH_TOKENS)
        self.trials: tuple[int, ...] = ()

    def arrange(self, encodings: list[Encoding]) -> Batch:
        check_lengths(encodings, self.longest)
        return Batch.pack(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return max(tokens, count * ROW_TOKENS)

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        pooled = np.zeros((len(batch.lengths), self.dimensions), np.float32)
        pooled[np.repeat(np.arange(len(batch.lengths)), batch.lengths), batch.input_ids] = self._weights[
            batch.input_ids
        ]
        return Output(pooled, None)

    def prepare(self, streams: int) -> None:
        """Each caller brings its thread."""

    def close(self) -> None:
        """There is nothing to give back."""


class LookupKind(EngineKind):
    """Runs tables of weights, whatever `--engine` says: there is nothing to compute."""

    name = option = "lookup"

    def offer(self, need: Need) -> Offer | Refusal:
        return self.propose(need)

    def propose(self, need: Need) -> Offer:
        """What `offer` says: it never refuses."""
        return Offer(self.name, "float32", 1, need.settings.engine.streams or need.settings.engine.threads)

    def make(self, need: Need, offer: Offer) -> Engine:
        return LookupEngine(need, offer)

    def inspect(self, need: Need) -> Network | None:
        def nothing(ops: Ops, inputs: Inputs) -> Results:
            raise AssertionError("a table of weights is looked up, not computed")

        vocabulary = need.checkpoint.config["vocab_size"]
        return Network(nothing, vocabulary, vocabulary)
