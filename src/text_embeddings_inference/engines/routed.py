"""Models with several sides (sentence-transformers' Router): an engine for each, as one.

A batch may hold texts of all sides; each engine gets its own, and the results are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..models.build import Network
from ..types import Batch, Encoding, Output, Pooling
from .base import Capacity, Engine, EngineKind, Memory, Need, Offer, Refusal


class Share(NamedTuple):
    """What one engine gets of a batch."""

    side: str
    places: NDArray[np.intp]
    """Of its texts in the batch."""
    batch: Batch


@dataclass(frozen=True, slots=True)
class RoutedBatch(Batch):
    """The batch as a whole, packed, and what each engine gets."""

    shares: tuple[Share, ...] = ()


class RoutedEngine:
    """The engines of all sides (see `base.Engine`). What they are given to compute is measured by the main one."""

    def __init__(self, main: str, engines: Mapping[str, Engine], *, sparse: bool) -> None:
        """sparse: results of sides with fewer values are filled up with zeros: they have an entry for each token.

        Raises CheckpointError where the sides' vectors differ in width.
        """
        self._engines = dict(engines)
        self._main = self._engines[main]
        self._main_name = main
        widths = {name: engine.dimensions for name, engine in engines.items()}
        if not sparse and len(set(widths.values())) > 1:
            told = ", ".join(f"`{name}` gives {width}" for name, width in widths.items())
            raise CheckpointError(f"the sides of the Router give vectors of different width: {told}")
        self.dimensions = max(widths.values())
        self.vocabulary = self._main.vocabulary
        self.longest = max(engine.longest for engine in engines.values())
        self.cores = self._main.cores
        streams = min(engine.capacity.streams for engine in engines.values())
        self.capacity = Capacity(streams, self._main.capacity.batch_tokens)
        self.trials = self._main.trials

    def arrange(self, encodings: list[Encoding]) -> RoutedBatch:
        sides = [encoding.side or self._main_name for encoding in encodings]
        shares = []
        for name, engine in self._engines.items():
            places = np.array([place for place, side in enumerate(sides) if side == name], np.intp)
            if len(places):
                shares.append(Share(name, places, engine.arrange([encodings[place] for place in places])))
        whole = Batch.pack(encodings)
        return RoutedBatch(whole.input_ids, whole.type_ids, whole.lengths, whole.attended, tuple(shares))

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return max(engine.cost(longest, count, tokens) for engine in self._engines.values())

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        """See `base.Engine.run`. Raises ValueError where vectors of tokens are asked for: each side has its own."""
        if tokens:
            raise ValueError("a model with several sides gives no vectors of tokens")
        assert isinstance(batch, RoutedBatch), "it was arranged by this engine"
        pooled = np.zeros((len(batch.lengths), self.dimensions), np.float32)
        for side, places, share in batch.shares:
            found = self._engines[side].run(share, cores=cores).pooled
            pooled[places, : found.shape[1]] = found
        return Output(pooled, None)

    def prepare(self, streams: int) -> None:
        for engine in self._engines.values():
            engine.prepare(streams)

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


class RoutedKind(EngineKind):
    """Makes the engines of all sides: the main one's is `kind`'s, the others' are those that run them best."""

    name = option = "routed"

    def __init__(self, kind: EngineKind, others: Mapping[str, tuple[EngineKind, Offer]]) -> None:
        """others: of the other sides, by name."""
        self._kind = kind
        self._others = dict(others)

    def offer(self, need: Need) -> Offer | Refusal:
        return self._kind.offer(need)

    def make(self, need: Need, offer: Offer) -> Engine:
        return self._all(need, offer, reference=False)

    def make_reference(self, need: Need, offer: Offer) -> Engine:
        return self._all(need, offer, reference=True)

    def inspect(self, need: Need) -> Network | None:
        for name, (kind, _) in self._others.items():
            kind.inspect(_need_of(need, name))
        return self._kind.inspect(need)

    def plan(self, need: Need) -> tuple[str, str] | None:
        return self._kind.plan(need)

    def memory(self, need: Need, offer: Offer, vocabulary: int | None, stored: int) -> Memory | None:
        return self._kind.memory(need, offer, vocabulary, stored)

    def _all(self, need: Need, offer: Offer, *, reference: bool) -> Engine:
        checkpoint = need.checkpoint
        assert checkpoint.router is not None, "it is for models with several sides"
        main = checkpoint.router.own
        wanted = {main: (self._kind, need, offer)}
        for name, (kind, own) in self._others.items():
            same = replace(own, dtype=offer.dtype, streams=offer.streams) if kind is self._kind else own
            wanted[name] = (kind, _need_of(need, name), same)
        engines: dict[str, Engine] = {}
        try:
            for name, (kind, its_need, its_offer) in wanted.items():
                make = kind.make_reference if reference else kind.make
                engines[name] = make(its_need, its_offer)
            return RoutedEngine(main, engines, sparse=checkpoint.pooling is Pooling.SPLADE)
        except BaseException:
            for engine in engines.values():
                engine.close()
            raise


def _need_of(need: Need, name: str) -> Need:
    return Need(need.checkpoint.sides[name], need.settings)
