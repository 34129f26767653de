"""The threads that keep an engine busy: each takes the next batch when it is free, runs it, and delivers the rows.

There is one thread more than the engine has streams. While all streams are busy it may form one batch ahead, and only a
full one, so that a stream finds its next batch inside the engine and nobody is put into a small batch too early.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..engines.base import Engine
from ..errors import InferenceError
from ..scheduler import Scheduler
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import BatchRun, Tracer
from ..types import Batch, Float32Array, Output
from .limits import Limits
from .pending import Job, Pending, Row

logger = logging.getLogger(__name__)

CLOSED = "the model is closed"
ENGINE_FAILED = "the engine failed on this input: see the server's log"
"""What is told of a failed batch. What the engine says names files and lines: that is the error's cause, and logged."""


class Runner:
    """Queue and threads of one engine. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float],
        tracer: Tracer | None = None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._most_tokens = limits.max_batch_tokens
        self._scheduler: Scheduler[Job] = Scheduler(
            engine.cost,
            max_tokens=min(engine.batch_tokens, limits.max_batch_tokens),
            max_entries=limits.max_batch_requests,
        )
        self._running = 0  # batches taken and not yet answered
        self._busy_since = 0.0  # what came before is counted
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{n}", daemon=True) for n in range(engine.streams + 1)
        ]
        self.last_failed = False
        metrics.watch_queue(self._queue_age)
        for thread in self._threads:
            thread.start()

    def submit(self, pending: Pending) -> None:
        """Queues every input of a request. Raises InferenceError once the runner is closed."""
        jobs = pending.jobs(self._clock())
        with self._changed:
            if self._closed:
                raise InferenceError(CLOSED)
            for job in jobs:
                self._scheduler.add(job)
            self._metrics.queue_size(len(self._scheduler))
            self._changed.notify(min(len(jobs), len(self._threads)))

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        with self._changed:
            return not self._running and not len(self._scheduler)

    def engine_changed(self) -> None:
        """The engine was measured, and may want other batches than before."""
        with self._changed:
            self._scheduler.max_tokens = min(self._engine.batch_tokens, self._most_tokens)

    def cancel(self, pending: Pending) -> None:
        """Nobody waits for the request any more: what is still queued is dropped."""
        with self._changed:
            pending.cancelled = True
            dropped = self._scheduler.drop_cancelled()
            if dropped:
                self._metrics.request_failed("dropped", sum(job.copies for job in dropped))
                self._metrics.queue_size(len(self._scheduler))

    def close(self) -> None:
        """Runs what is queued, then ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            jobs, alone = batch
            self._run(jobs, alone=alone)
            del batch, jobs  # or a thread that waits for work keeps its last output in memory
            with self._changed:
                self._running -= 1

    def _take(self) -> tuple[list[Job], bool] | None:
        """The next batch, and whether it has the engine for itself; None when all is done and the runner is closed."""
        with self._changed:
            while True:
                if len(self._scheduler) and self._may_start():
                    free = max(1, self._engine.streams - self._running)
                    jobs = self._scheduler.next_batch(free)
                    alone = self._running == 0 and not len(self._scheduler)
                    if self._running == 0:
                        self._busy_since = self._clock()
                    self._running += 1
                    self._metrics.queue_size(len(self._scheduler))
                    self._metrics.batch_formed(len(jobs), sum(job.length for job in jobs))
                    return jobs, alone
                if self._closed and not len(self._scheduler):
                    self._changed.notify_all()  # those that waited for a free stream: there is nothing left to wait for
                    return None
                self._changed.wait()

    def _queue_age(self) -> float:
        """Seconds that the oldest waiting input has waited; 0 if none does."""
        with self._changed:
            oldest = self._scheduler.oldest
            return 0.0 if oldest is None else self._clock() - oldest.queued_at

    def _may_start(self) -> bool:
        streams = self._engine.streams
        ahead = self._running == streams and self._scheduler.waiting_tokens >= self._scheduler.max_tokens
        return self._running < streams or ahead

    def _run(self, jobs: list[Job], *, alone: bool) -> None:
        """Runs a batch and delivers its rows. A batch that fails is halved until the input that fails is alone."""
        start = self._clock()
        try:
            batch = self._engine.arrange([job.encoding for job in jobs])
            output = self._engine.run(batch, tokens=any(job.pending.tokens for job in jobs), alone=alone)
            values = self._values(jobs, batch, output)
        except Exception as problem:  # whatever the hardware's library raises is the fault of this batch alone
            self._trace(jobs, start, problem=type(problem).__name__)
            self._fail(jobs, problem)
            return
        inference = self._clock() - start
        self.last_failed = False
        self._metrics.batch_computed(batch.tokens, batch.computed_tokens, self._scheduler.max_tokens)
        run = self._trace(jobs, start, batch)
        rows = [
            Row(job.encoding, own, inference, start - job.queued_at, run) for job, own in zip(jobs, values, strict=True)
        ]
        self._deliver(jobs, rows)

    def _trace(
        self, jobs: list[Job], start: float, batch: Batch | None = None, problem: str | None = None
    ) -> BatchRun | None:
        """Tells the tracer, if there is one, that the batch has run."""
        if self._tracer is None:
            return None
        attributes = {"inputs": len(jobs), "tokens": sum(job.length for job in jobs)}
        if batch is not None:
            attributes["computed_tokens"] = batch.computed_tokens
        return self._tracer.batch(start, attributes, problem)

    def _fail(self, jobs: list[Job], problem: Exception) -> None:
        self.last_failed = True
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._run(jobs[:middle], alone=False)
            self._run(jobs[middle:], alone=False)
            return
        reason = str(problem) or type(problem).__name__
        logger.error("the engine failed on an input of %d tokens: %s", jobs[0].length, reason)
        self._metrics.request_failed("inference", jobs[0].copies)
        error = InferenceError(ENGINE_FAILED)
        error.__cause__ = problem
        self._deliver(jobs, [error])

    def _deliver(self, jobs: list[Job], rows: Sequence[Row | InferenceError]) -> None:
        with self._changed:
            now = self._clock()
            self._metrics.engine_busy(now - self._busy_since)
            self._busy_since = now
            done = [job.pending for job, row in zip(jobs, rows, strict=True) if job.pending.deliver(job, row)]
        for pending in done:
            pending.on_done()

    @staticmethod
    def _values(jobs: list[Job], batch: Batch, output: Output) -> list[Float32Array]:
        """Each job's own part of the output: a view, never a copy."""
        starts = batch.lengths.cumsum() - batch.lengths
        values = []
        for index, job in enumerate(jobs):
            if not job.pending.tokens:
                values.append(output.pooled[index])
                continue
            assert output.tokens is not None, "asked a model without token vectors for them"
            if batch.is_packed:
                values.append(output.tokens[starts[index] : starts[index] + job.length])
            else:
                values.append(output.tokens[index, : job.length])
        return values
