"""The threads that keep engines busy: each takes the next batch when it is free, runs it, and delivers the rows.

An engine has one thread more than streams. While all streams are busy it may form one batch ahead, and only a full one,
so that a stream finds its next batch inside the engine and no input is put into a small batch too early.

A thread that hangs in native code can't be ended. Its engine is suspended and another made in its place; what the batch
gives later is dropped. Should it return while no other engine serves, its engine serves again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from ..engines.base import Capacity, Engine
from ..errors import InferenceError, OverloadedError
from ..settings.limits import BatchLimits
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import BatchRun, Tracer
from .batch import Computed, compute, is_out_of_memory
from .dispatch import Dispatch
from .jobs import JobGroup, Row
from .recovery import NO_ENGINE, Recovery
from .shared import Shared
from .slots import Flight, Slot, State
from .workers import Workers

logger = logging.getLogger(__name__)

ENGINE_FAILED = "the engine failed on this input: see the server's log"
"""What a client is sent for a failed batch. What the engine says names files and lines: that is the error's cause, and
logged."""
CLOSED = "the model is closed"
ENDING = "the server is shutting down"
FORKED = "the model was loaded before a fork: load it in the child"


def closed_error() -> InferenceError:
    """What is asked of a model after its end; not counted as a failure."""
    return InferenceError(CLOSED, inputs=0)


def end(runner: Runner, measuring: Iterable[Callable[[], None]] = ()) -> None:
    """No thread may be in native code when the interpreter ends: C++ calls `terminate` for one that comes back.

    A child of a fork has none of these threads. measuring: what ends, or waits for, others that run the engine.
    """
    if runner.is_forked:
        return
    runner.drop()
    for stop in measuring:
        stop()
    runner.close()


class Runner:
    """Queue, engines and threads of one model. All methods may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        limits: BatchLimits,
        metrics: Metrics,
        clock: Callable[[], float],
        tracer: Tracer | None = None,
        new_engine: Callable[[], Engine] | None = None,
    ) -> None:
        """new_engine: makes another in place of one that can't be trusted any more; it may raise."""
        self.engine = engine
        """The first engine in service, or the last that was."""
        self.capacity = engine.capacity
        """What is given to that engine, and to another in its place; see `set_capacity`."""
        self.batches = 0
        """So many were given to an engine so far."""
        self._process = os.getpid()
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._dispatch = Dispatch(max_entries=limits.max_batch_requests)
        self._shared = Shared(self._dispatch, metrics)
        self._changed = self._shared.changed
        self._busy_since = 0.0  # what came before is counted
        self._workers = Workers(self._take, self._run, self._ended)
        self.add_engine(engine, engine.capacity)
        self._recovery = Recovery(self._shared, new_engine, self._replace)
        metrics.watch_queue(self._queue_age)

    # --- from outside ---------------------------------------------------------------------------------------------

    def add_engine(self, engine: Engine, capacity: Capacity) -> None:
        """One more engine of this model serves the queue, side by side with those that do.

        Raises RuntimeError where its threads can't be started.
        """
        with self._shared.changing():
            self._dispatch.wanted += 1
            self._open_slot(engine, capacity)

    def submit(self, group: JobGroup) -> None:
        """Queues inputs. Raises InferenceError once the runner is closed, or has no engine, and OverloadedError where
        too much waits."""
        jobs = group.jobs(self._clock())
        most = self._limits.max_queued_tokens
        with self._changed:
            if self._shared.closed:
                raise closed_error()
            if self._shared.unavailable:
                raise InferenceError(NO_ENGINE, inputs=sum(group.copies))
            waiting = self._dispatch.scheduler.waiting_tokens
            if most and waiting and waiting + group.length > most:
                raise OverloadedError
            self._dispatch.add(jobs)
            self._metrics.queue_size(len(self._dispatch))
            if self._workers.slots > 1:  # some of the threads that wait may not take them
                self._changed.notify_all()
            else:
                self._changed.notify(len(jobs))

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that has the threads: nothing runs, and locks may be held for ever."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raises InferenceError in a child of the process that has the threads."""
        if self.is_forked:
            raise InferenceError(FORKED, inputs=0)

    @property
    def healthy(self) -> bool:
        """Whether there is an engine that can be trusted: what is known now, without asking it."""
        with self._changed:
            return self._dispatch.healthy

    def watch_health(self, changed: Callable[[], object]) -> None:
        """Has `changed` called, by any thread, whenever `healthy` has changed."""
        self._shared.on_health = changed

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        with self._changed:
            return self._dispatch.idle

    @property
    def closed(self) -> bool:
        """Whether nothing is taken any more."""
        return self._shared.closed

    @property
    def hangs(self) -> bool:
        """After `close`: whether threads are left that can't be ended, for which the process should not wait."""
        return self._workers.slots > 0 or self._recovery.works

    def set_capacity(self, capacity: Capacity) -> None:
        """The engine was measured; `streams` is not more than it was."""
        with self._changed:
            self.capacity = capacity
            for slot in self._dispatch.slots:
                if slot.engine is self.engine:
                    slot.set_capacity(capacity, self._limits)

    def tick(self, seconds: float) -> None:
        """So much time has passed: gives up what overran. Called about once a second by a thread of the runner."""
        self._recovery.tick(seconds)

    def cancel(self, group: JobGroup) -> None:
        """The answer is not waited for any more: what is still queued is dropped."""
        with self._changed:
            group.cancelled = True
            dropped = self._dispatch.drop_cancelled()
            if dropped:
                self._metrics.request_failed("dropped", sum(job.copies for job in dropped))
                self._metrics.queue_size(len(self._dispatch))
            if self._shared.closed:
                self._changed.notify_all()  # there may be nothing left to wait for

    def drop(self) -> None:
        """Answers what waits with an error, and takes nothing more; what runs may end."""
        with self._shared.changing():
            self._shared.closed = True
            self._shared.refuse(self._dispatch.clear(), ENDING)
            self._changed.notify_all()

    def abort(self) -> None:
        """Answers what waits and what runs with an error, and takes nothing more."""
        with self._shared.changing():
            self._shared.closed = True
            self._shared.refuse(self._dispatch.clear() + self._dispatch.abandon(), ENDING)
            self._changed.notify_all()

    def close(self) -> None:
        """Runs what is queued, then ends the threads and closes the engines, but for those that hang."""
        with self._changed:
            self._shared.closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._dispatch.idle)
            self._changed.notify_all()
        self._workers.join()
        self._recovery.close()

    # --- the threads of an engine ---------------------------------------------------------------------------------

    def _open_slot(self, engine: Engine, capacity: Capacity) -> None:
        """Takes an engine into service. Raises RuntimeError where no thread can be started."""
        slot = Slot.of(engine, capacity, self._limits)
        self._workers.start(slot)  # they wait for the lock
        self._dispatch.add_slot(slot)
        self._serves()

    def _replace(self, engine: Engine) -> None:
        self._open_slot(engine, self.capacity)
        self._metrics.engine_replaced()

    def _serves(self) -> None:
        """An engine has come into service."""
        self._shared.unavailable = False
        self.engine = self._dispatch.serving[0].engine
        self._changed.notify_all()

    def _take(self, slot: Slot) -> Flight | None:
        """The next batch; None when all is done and the runner is closed, or another engine has taken the place."""
        with self._changed:
            while True:
                flight = self._dispatch.take(slot)
                if flight is not None:
                    self.batches += 1
                    if self._dispatch.running == 1:
                        self._busy_since = self._clock()
                    self._metrics.queue_size(len(self._dispatch))
                    if flight.is_new:
                        self._metrics.batch_formed(len(flight.jobs), flight.length)
                    return flight
                if slot.state is State.RETIRED or (self._shared.closed and self._dispatch.idle):
                    self._changed.notify_all()
                    return None
                self._changed.wait()

    def _run(self, flight: Flight) -> None:
        """Runs a batch, and delivers what came of it unless it was lost meanwhile."""
        start = self._clock()
        result: Computed | BaseException
        try:
            result = compute(flight.slot.engine, flight.jobs, cores=flight.cores)
        except BaseException as problem:  # whatever the hardware's library raises; a panic of Rust is no Exception
            result = problem
        seconds = self._clock() - start
        with self._shared.changing():
            if flight.lost:
                if self._dispatch.late_return(flight):
                    self._serves()
                return
            now = self._clock()
            self._metrics.engine_busy(now - self._busy_since)
            self._busy_since = now
            if isinstance(result, Computed):
                self._finished(flight, result, start, seconds)
            else:
                self._failed(flight, result, start)

    def _finished(self, flight: Flight, result: Computed, start: float, seconds: float) -> None:
        batch, spoilt = result.batch, result.spoilt
        self._metrics.batch_computed(batch.tokens, batch.computed_tokens, flight.slot.budget.tokens)
        run = self._trace(flight, start, computed_tokens=batch.computed_tokens)
        standing = self._dispatch.finished(flight, seconds, spoilt)
        if spoilt or self._shared.closed:
            self._changed.notify_all()
        self._shared.answer(
            (job, Row(job.encoding, values, seconds, start - job.queued_at, run))
            for job, values in zip(flight.jobs, result.values, strict=True)
            if not spoilt or job in standing
        )

    def _failed(self, flight: Flight, problem: BaseException, start: float) -> None:
        self._trace(flight, start, problem=type(problem).__name__)
        reason = str(problem) or type(problem).__name__
        if flight.is_canary:
            logger.error("the engine failed on a single token: %s", reason)
        for job in self._dispatch.failed(flight, out_of_memory=is_out_of_memory(problem)):
            logger.error("the engine failed on an input of %d tokens: %s", job.length, reason)
            error = InferenceError(ENGINE_FAILED)
            error.__cause__ = problem
            self._shared.answer([(job, error)])
        self._changed.notify_all()
        self._recovery.replace_if_broken(flight.slot)

    def _trace(self, flight: Flight, start: float, problem: str | None = None, **counts: int) -> BatchRun | None:
        if self._tracer is None or flight.is_canary:
            return None
        return self._tracer.batch(start, {"inputs": len(flight.jobs), "tokens": flight.length} | counts, problem)

    def _ended(self, slot: Slot) -> None:
        """All threads of an engine have ended."""
        with self._changed:
            if slot.state is State.RETIRED:
                self._dispatch.slots.remove(slot)
        slot.engine.close()

    def _queue_age(self) -> float:
        """Seconds that the oldest waiting input has waited; 0 if none does."""
        with self._changed:
            oldest = self._dispatch.scheduler.oldest
            return 0.0 if oldest is None else self._clock() - oldest.queued_at
