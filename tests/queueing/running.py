"""A runner for as long as a test runs, and requests to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.fakes import PATIENCE, FakeEngine, pooled_vector, token_vectors
from text_embeddings_inference.queueing.jobs import JobGroup, Row
from text_embeddings_inference.queueing.runner import Runner
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.telemetry.metrics import Metrics
from text_embeddings_inference.types import Encoding

CANARY = [[0]]
"""What an engine is asked to see whether it works."""


class Request:
    """A request of token ids, and the wait for its answer."""

    def __init__(self, inputs: tuple[list[int], ...], *, tokens: bool = False) -> None:
        self.inputs = inputs
        self.done = threading.Event()
        encodings = [Encoding(np.array(ids, np.int32), None, len(ids)) for ids in inputs]
        self.group = JobGroup(encodings, tokens=tokens, on_done=self.done.set)

    def rows(self) -> list[Row]:
        assert self.done.wait(PATIENCE), "no answer"
        return self.group.results()

    def check(self, dimensions: int = 4) -> None:
        """Every input got its own vector or vectors."""
        compute = token_vectors if self.group.tokens else pooled_vector
        for row, ids in zip(self.rows(), self.inputs, strict=True):
            np.testing.assert_array_equal(row.values, compute(ids, dimensions))


class Queueing:
    """A runner, its engine and its metrics."""

    def __init__(
        self,
        engine: FakeEngine,
        clock: Callable[[], float],
        limits: Limits,
        new_engine: Callable[[], FakeEngine] | None = None,
    ) -> None:
        self.engine = engine
        self.metrics = Metrics(512)
        self.runner = Runner(engine, limits, self.metrics, clock, new_engine=new_engine)

    def ask(self, *inputs: list[int], tokens: bool = False) -> Request:
        request = Request(inputs, tokens=tokens)
        self.runner.submit(request.group)
        return request

    def close(self) -> None:
        closing = threading.Thread(target=self.runner.close, daemon=True)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive(), "the runner does not end"

    def metric(self, line: str) -> bool:
        return line in self.metrics.render().decode().splitlines()

    @property
    def sizes(self) -> list[int]:
        """Inputs of every batch the engine got, canaries left out."""
        return [len(ran.inputs) for ran in self.engine.batches if ran.inputs != CANARY]


@contextmanager
def queueing(
    engine: FakeEngine | None = None,
    clock: Callable[[], float] = time.perf_counter,
    new_engine: Callable[[], FakeEngine] | None = None,
    **limits: Any,
) -> Iterator[Queueing]:
    built = Queueing(engine or FakeEngine(), clock, Limits(**limits), new_engine)
    try:
        yield built
    finally:
        built.engine.let()
        built.close()
