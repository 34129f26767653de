"""The engine for CPUs that runs plans of our own kernels: packed batches without padding, nothing compiled at load."""

from __future__ import annotations

import ctypes as c
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import StoredWeights
from ..errors import StartError
from ..models.build import build
from ..native.batch import made, make_batch
from ..native.build import cache_folder
from ..native.formats import Formats
from ..native.library import Level
from ..native.packs import Packs
from ..native.probe import make_plan
from ..ops.native import NativeOps, inputs
from ..types import Batch, Encoding, Output
from .base import BatchSizes, Capacity, Need, Offer, check_lengths

logger = logging.getLogger(__name__)

SIZES = BatchSizes(best=1024, trials=(256, 512, 1024, 2048), splade_bytes=1 << 27)
"""Larger batches were not faster, and need more memory (docs/log.md)."""


class NativeEngine:
    """Runs packed batches on the CPU (see `base.Engine`): each on its caller's thread, with others where it may."""

    def __init__(self, need: Need, offer: Offer, level: Level) -> None:
        """level: the kernels.

        Raises UnsupportedError or CheckpointError where the checkpoint can't be built (`models.build.build`), and
        UnsupportedError for a dtype that the kernels don't have."""
        self.longest = need.checkpoint.longest
        self.cores = offer.threads
        self._weights = need.checkpoint.weights
        self._library = level.library
        ops = NativeOps(self.longest)
        network = build(need.checkpoint, ops, StoredWeights(self._weights))
        results = network.run(ops, inputs())
        nodes = results.pooled.raw, None if results.tokens is None else results.tokens.raw
        formats = Formats(level, offer.dtype)
        self.plan = make_plan(level, nodes, self.longest, formats, offer.threads, _packs(need))
        logger.info("Plan for the kernels `%s`: %s", level.name, self.plan.summary)
        logger.debug("%s", self.plan)
        self.dimensions = network.dimensions
        self.vocabulary = network.vocabulary
        best, self.trials = SIZES.fit(need, logits_bytes=4 * network.vocabulary)
        self.capacity = Capacity(offer.streams, best)
        self._hidden_width: int | None = None if nodes[1] is None else nodes[1].width
        self._table_rows = self.plan.table_rows
        self._engine: int | None = made(self._library.tei_open(level.pointer, c.byref(self.plan.raw)))
        self._teams: defaultdict[int, list[int]] = defaultdict(list)
        self._lock = threading.Lock()
        self._weights.release()  # the packed weights are a copy

    def arrange(self, encodings: list[Encoding]) -> Batch:
        check_lengths(encodings, self.longest)
        return Batch.pack(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return tokens

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        """See `base.Engine.run`. Raises ValueError for lengths and ids that the model does not have."""
        assert self._engine is not None, "the engine is closed"
        if tokens and self._hidden_width is None:
            raise ValueError("this model gives no vectors of tokens")
        self._check(batch)
        pooled = np.empty((len(batch.lengths), self.dimensions), np.float32)
        hidden = np.empty((batch.tokens, self._hidden_width or 0), np.float32) if tokens else None
        ids, types, seen = batch.input_ids, batch.type_ids, batch.attended
        raw = make_batch(ids, batch.lengths, self.plan.ropes, pooled, type_ids=types, attended=seen, hidden=hidden)
        with self._team(min(cores or self.cores, self.cores)) as team:
            problem = self._library.tei_run(self._engine, c.byref(raw), team)
        if problem:
            raise MemoryError(f"a batch of {batch.tokens} tokens: {os.strerror(problem)}")
        return Output(pooled, hidden)

    def prepare(self, streams: int) -> None:
        """Each caller brings its thread."""

    def close(self) -> None:
        self._library.tei_close(self._engine)
        for team in [team for teams in self._teams.values() for team in teams]:
            self._library.tei_team_free(team)
        self._engine = None
        self._teams.clear()
        self.plan.close()
        self._weights.release()

    @contextmanager
    def _team(self, threads: int) -> Iterator[int | None]:
        """So many threads, the caller among them, for one batch; None for the caller alone."""
        if threads == 1:
            yield None
            return
        with self._lock:
            unused = self._teams[threads]
            team = unused.pop() if unused else made(self._library.tei_team_new(threads))
        try:
            yield team
        finally:
            with self._lock:
                unused.append(team)

    def _check(self, batch: Batch) -> None:
        """Raises ValueError for what would be read beyond an array."""
        lengths = batch.lengths
        if not batch.is_packed or batch.tokens != batch.input_ids.size:
            raise ValueError("a batch for the native engine is packed, and its lengths are those of its ids")
        _check_range("a length", lengths, 1, self._table_rows.get("positions", self.longest) + 1)
        _check_range("a token id", batch.input_ids, 0, self._table_rows["input_ids"])
        if batch.type_ids is not None:
            if batch.type_ids.shape != batch.input_ids.shape:
                raise ValueError("each token has one type")
            if "type_ids" in self._table_rows:
                _check_range("a token type", batch.type_ids, 0, self._table_rows["type_ids"])
        if batch.attended is not None:
            if batch.attended.shape != lengths.shape or (batch.attended > lengths).any():
                raise ValueError("no more tokens are attended than there are")
            _check_range("a number of attended tokens", batch.attended, 1, int(lengths.max()) + 1)


def _packs(need: Need) -> Packs:
    """What weights are packed from, and where they are kept, packed."""
    options, checkpoint = need.settings.engine, need.checkpoint
    heads = (*checkpoint.all_dense, checkpoint.lexical, checkpoint.vectors)
    weights = [checkpoint.weights, *(head.weights for head in heads if head is not None)]
    files = tuple(dict.fromkeys(file for one in weights for file in one.files))
    if options.no_compile_cache:
        return Packs(None, files)
    try:
        return Packs(options.compile_cache or cache_folder(), files, asked=options.compile_cache is not None)
    except StartError as problem:
        logger.info("packed weights are not kept: %s", problem)
        return Packs(None, files)


def _check_range(what: str, values: NDArray[np.int32], first: int, end: int) -> None:
    if values.size == 0 or values.min() < first or values.max() >= end:
        raise ValueError(f"{what} is not between {first} and {end - 1}")
