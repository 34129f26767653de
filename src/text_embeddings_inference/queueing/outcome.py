"""What came of a batch: each input's row, and what is told of it to the metrics, the tracer and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import InferenceError
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import BatchRun, Tracer
from ..types import Float32Array
from .batch import Computed
from .jobs import Job, JobGroup, Row
from .slots import Flight

logger = logging.getLogger(__name__)

ENGINE_FAILED = "the engine failed on this input: see the server's log"
"""What a client is told of a failed batch. What the engine says names files and lines: that is the error's cause, and
logged."""


class Observer:
    """Tells of batches. Called under the runner's lock."""

    def __init__(self, metrics: Metrics, tracer: Tracer | None) -> None:
        self._metrics = metrics
        self._tracer = tracer

    def formed(self, flight: Flight) -> None:
        """A batch goes into an engine."""
        if flight.is_new:
            self._metrics.batch_formed(len(flight.jobs), sum(job.length for job in flight.jobs))

    def computed(self, flight: Flight, computed: Computed, start: float) -> BatchRun | None:
        """A batch was computed. start: when it began."""
        batch, budget = computed.batch, flight.slot.budget.tokens
        self._metrics.batch_computed(batch.tokens, batch.computed_tokens, budget)
        return self._trace(flight, start, computed_tokens=batch.computed_tokens)

    def failed(self, flight: Flight, problem: BaseException, start: float) -> None:
        """An engine raised."""
        self._trace(flight, start, problem=type(problem).__name__)
        if flight.is_canary:
            logger.error("the engine failed on a single token: %s", reason(problem))

    def _trace(self, flight: Flight, start: float, problem: str | None = None, **counts: int) -> BatchRun | None:
        if self._tracer is None or flight.is_canary:
            return None
        attributes = {"inputs": len(flight.jobs), "tokens": sum(job.length for job in flight.jobs)} | counts
        return self._tracer.batch(start, attributes, problem)


def reason(problem: BaseException) -> str:
    return str(problem) or type(problem).__name__


class BatchTimes(NamedTuple):
    """When a batch ran."""

    start: float
    seconds: float
    run: BatchRun | None
    """If it is traced."""


def deliver_rows(flight: Flight, computed: Computed, standing: Sequence[Job], times: BatchTimes) -> list[JobGroup]:
    """Gives the jobs whose rows stand their own; the groups that have all their answers now."""
    found: Iterator[tuple[Job, Float32Array]] = zip(flight.jobs, computed.values, strict=True)
    if computed.spoilt:
        found = ((job, values) for job, values in found if job in standing)
    done = []
    for job, values in found:
        row = Row(job.encoding, values, times.seconds, times.start - job.queued_at, times.run)
        if job.group.deliver(job, row):
            done.append(job.group)
    return done


def deliver_failure(jobs: Iterable[Job], problem: BaseException) -> list[JobGroup]:
    """Answers jobs on which the engine failed; the groups that have all their answers now."""
    done = []
    for job in jobs:
        logger.error("the engine failed on an input of %d tokens: %s", job.length, reason(problem))
        error = InferenceError(ENGINE_FAILED)
        error.__cause__ = problem
        if job.group.deliver(job, error):
            done.append(job.group)
    return done


def deliver_refusal(jobs: Iterable[Job], message: str) -> list[JobGroup]:
    """Answers jobs that do not run any more; the groups that have all their answers now."""
    return [job.group for job in jobs if job.group.deliver(job, InferenceError(message))]
