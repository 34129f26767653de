"""The threads that keep an engine busy: each takes the next batch when it is free, runs it, and delivers the rows.

There is one thread more than the engine has streams. While all streams are busy it may form one batch ahead, and only a
full one, so that a stream finds its next batch inside the engine and nobody is put into a small batch too early.

A thread that hangs in native code can't be ended. Its engine is given up and replaced, threads and all; what it gives
later is for nobody. Should it come back while there is no other, it is in service again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..engines.base import Capacity, Engine, share_of_cores
from ..errors import InferenceError, OverloadedError
from ..settings import BatchLimits
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import BatchRun, Tracer
from .batch import Computed, compute
from .budget import FixedDeadline, MeasuredDeadline, is_out_of_memory
from .dispatch import Dispatch, Flight
from .jobs import Job, Pending, Row
from .recovery import Repair, Watchdog

logger = logging.getLogger(__name__)

CLOSED = "the model is closed"
ENGINE_FAILED = "the engine failed on this input: see the server's log"
"""What is told of a failed batch. What the engine says names files and lines: that is the error's cause, and logged."""
TOO_LONG = "the engine took too long for this input"
NO_ENGINE = "the engine does not answer: see the server's log"
ENDING = "the server is shutting down"

REPAIR_S = 600.0
"""So long requests wait for a new engine."""
MOST_HANGING = 3
"""Engines in which threads hang, each with its memory and its busy cores; with so many, no other is made."""


@dataclass(eq=False, slots=True)
class Crew:
    """An engine and its threads.

    alive: threads that have not ended; flights: what is in the engine; retired: the threads are to end, whatever comes.
    """

    engine: Engine
    alive: int = 0
    flights: list[Flight] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    retired: bool = False

    @property
    def hangs(self) -> bool:
        """Whether a thread is in a batch that nobody waits for any more."""
        return any(flight.lost for flight in self.flights)


class Runner:
    """Queue and threads of one model. `submit` and `cancel` may be called from any thread."""

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
        """The engine in service, or the last that was."""
        self.capacity = engine.capacity
        """What is given to the engine, and to the next one in its place; see `set_capacity`."""
        self.batches = 0  # given to an engine so far
        self.on_health: Callable[[], object] = lambda: None
        """Called by any thread when `healthy` has changed."""
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._new_engine = new_engine
        self._most_tokens = limits.token_limit
        self._most_queued = limits.max_queued_tokens
        deadlines = MeasuredDeadline() if limits.batch_timeout is None else FixedDeadline(limits.batch_timeout)
        self._dispatch = Dispatch.of(engine.cost, limits, deadlines, batch_tokens=engine.capacity.batch_tokens)
        self._closed = False
        self._was_healthy = True
        self._hopeless = False  # there is no engine, and nobody is to wait for one
        self._crew: Crew | None = None
        self._crews: list[Crew] = []  # all whose threads have not ended
        self._repair: Repair | None = None
        self._repairing_s = 0.0
        self._changed = threading.Condition()
        self._busy_since = 0.0  # what came before is counted
        with self._changed:
            self._enlist(engine)
        self._watchdog = Watchdog(self.tick)
        metrics.watch_queue(self._queue_age)

    # --- from outside ---------------------------------------------------------------------------------------------

    def submit(self, pending: Pending) -> None:
        """Queues every input of a request.

        Raises InferenceError once the runner is closed, or has no engine, and OverloadedError where too much waits.
        """
        jobs = pending.jobs(self._clock())
        with self._changed:
            if self._closed:
                raise InferenceError(CLOSED)
            if self._hopeless:
                self._metrics.request_failed("inference", sum(job.copies for job in jobs))
                raise InferenceError(NO_ENGINE)
            waiting = self._dispatch.scheduler.waiting_tokens
            if self._most_queued is not None and waiting and waiting + pending.length > self._most_queued:
                raise OverloadedError
            self._dispatch.add(jobs)
            self._metrics.queue_size(len(self._dispatch))
            self._changed.notify(min(len(jobs), self.capacity.streams + 1))

    @property
    def healthy(self) -> bool:
        """Whether there is an engine that can be trusted: what is known now, without asking it."""
        return self._crew is not None and self._dispatch.healthy

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        with self._changed:
            return self._dispatch.idle

    @property
    def hangs(self) -> bool:
        """After `close`: whether threads are left that can't be ended, for which the process should not wait."""
        with self._changed:
            repairing = self._repair is not None and self._repair.works
            return repairing or any(crew.alive for crew in self._crews)

    def set_capacity(self, capacity: Capacity) -> None:
        """The engine was measured; `streams` is not more than it was."""
        with self._changed:
            self.capacity = capacity
            self._dispatch.set_budget(min(capacity.batch_tokens, self._most_tokens))

    def cancel(self, pending: Pending) -> None:
        """Nobody waits for the request any more: what is still queued is dropped."""
        with self._changed:
            pending.cancelled = True
            dropped = self._dispatch.drop_cancelled()
            if dropped:
                self._metrics.request_failed("dropped", sum(job.copies for job in dropped))
                self._metrics.queue_size(len(self._dispatch))
            if self._closed:
                self._changed.notify_all()  # there may be nothing left to wait for

    def abort(self) -> None:
        """Answers what waits and what runs with an error, and takes nothing more."""
        with self._changed:
            self._closed = True
            done = self._refuse(self._dispatch.clear(flying=True), ENDING)
            self._changed.notify_all()
        self._finish(done)

    def close(self) -> None:
        """Runs what is queued, then ends the threads, but for those that hang."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._dispatch.idle)
            self._changed.notify_all()
            threads = [thread for crew in self._crews if not crew.hangs for thread in crew.threads]
        for thread in threads:
            thread.join()
        if self._repair is not None:
            self._repair.stop()
        self._watchdog.close()

    def close_engine(self) -> None:
        """Gives back the engine's memory, unless threads hang in it; to be called after `close`."""
        if self._crew is not None and not self._crew.alive:
            self._crew.engine.close()

    # --- the threads of an engine ---------------------------------------------------------------------------------

    def _enlist(self, engine: Engine) -> None:
        """Takes an engine into service."""
        crew = Crew(engine, self.capacity.streams + 1)
        crew.threads = [
            threading.Thread(target=self._work, args=(crew,), name=f"engine-{n}", daemon=True)
            for n in range(crew.alive)
        ]
        self._crews = [*(old for old in self._crews if old.alive), crew]
        self._serve(crew)
        for thread in crew.threads:
            thread.start()

    def _serve(self, crew: Crew) -> None:
        self._crew, self.engine, self._hopeless = crew, crew.engine, False
        self._dispatch.serve(crew.engine.cost, min(self.capacity.batch_tokens, self._most_tokens))
        self._changed.notify_all()

    def _work(self, crew: Crew) -> None:
        while flight := self._take(crew):
            self._fly(crew, flight)
            del flight  # or a thread that waits for work keeps its last output in memory
        with self._changed:
            crew.alive -= 1
            is_over = not crew.alive and crew is not self._crew
        if is_over:
            crew.engine.close()

    def _take(self, crew: Crew) -> Flight | None:
        """The next batch; None when all is done and the runner is closed, or another engine is in service."""
        with self._changed:
            while True:
                flight = self._dispatch.take(self.capacity.streams) if self._crew is crew else None
                if flight is not None:
                    if not crew.flights:
                        self._busy_since = self._clock()
                    crew.flights.append(flight)
                    self.batches += 1
                    self._metrics.queue_size(len(self._dispatch))
                    if flight.is_new:
                        self._metrics.batch_formed(len(flight.jobs), sum(job.length for job in flight.jobs))
                    return flight
                is_over = self._closed and self._dispatch.idle
                if is_over or crew.retired or self._crew not in (None, crew):
                    self._changed.notify_all()
                    return None
                self._changed.wait()

    def _queue_age(self) -> float:
        """Seconds that the oldest waiting input has waited; 0 if none does."""
        with self._changed:
            oldest = self._dispatch.scheduler.oldest
            return 0.0 if oldest is None else self._clock() - oldest.queued_at

    def _fly(self, crew: Crew, flight: Flight) -> None:
        """Runs a batch, and delivers what came of it unless nobody waits for it any more."""
        start = self._clock()
        result: Computed | BaseException
        try:
            cores = None if flight.alone else share_of_cores(crew.engine, self.capacity.streams)
            result = compute(crew.engine, flight.jobs, cores=cores)
        except BaseException as problem:  # whatever the hardware's library raises; a panic of Rust is no Exception
            result = problem
        seconds = self._clock() - start
        with self._changed:
            crew.flights.remove(flight)
            now = self._clock()
            self._metrics.engine_busy(now - self._busy_since)
            self._busy_since = now
            if flight.lost:
                self._came_back(crew)
                done = []
            elif isinstance(result, Computed):
                done = self._landed(flight, result, start, seconds)
            else:
                done = self._crashed(crew, flight, result, start)
        self._finish(done)

    def _landed(self, flight: Flight, computed: Computed, start: float, seconds: float) -> list[Pending]:
        batch, values, spoilt = computed
        self._metrics.batch_computed(batch.tokens, batch.computed_tokens, self._dispatch.scheduler.max_tokens)
        run = self._trace(flight, start, computed_tokens=batch.computed_tokens)
        stand = self._dispatch.landed(flight, seconds, spoilt)
        rows = [
            Row(job.encoding, own, seconds, start - job.queued_at, run)
            for job, own in zip(flight.jobs, values, strict=True)
            if len(stand) == len(values) or job in stand
        ]
        if spoilt or self._closed:
            self._changed.notify_all()
        return self._deliver(stand, rows)

    def _crashed(self, crew: Crew, flight: Flight, problem: BaseException, start: float) -> list[Pending]:
        self._trace(flight, start, problem=type(problem).__name__)
        reason = str(problem) or type(problem).__name__
        blamed = self._dispatch.crashed(flight, out_of_memory=is_out_of_memory(problem))
        errors = []
        for job in blamed:
            logger.error("the engine failed on an input of %d tokens: %s", job.length, reason)
            self._metrics.request_failed("inference", job.copies)
            errors.append(InferenceError(ENGINE_FAILED))
            errors[-1].__cause__ = problem
        done = self._deliver(blamed, errors)
        if flight.is_canary:
            logger.error("the engine failed on a single token: %s", reason)
            if self._dispatch.is_broken and self._crew is crew and self._new_engine is not None:
                crew.retired = True
                done += self._give_up()
        self._changed.notify_all()
        return done

    def _trace(self, flight: Flight, start: float, problem: str | None = None, **counts: int) -> BatchRun | None:
        """Tells the tracer, if there is one, that the batch has run."""
        if self._tracer is None or flight.is_canary:
            return None
        attributes = {"inputs": len(flight.jobs), "tokens": sum(job.length for job in flight.jobs)} | counts
        return self._tracer.batch(start, attributes, problem)

    @staticmethod
    def _deliver(jobs: Sequence[Job], rows: Sequence[Row | InferenceError]) -> list[Pending]:
        """The requests that have all their answers now."""
        return [job.pending for job, row in zip(jobs, rows, strict=True) if job.pending.deliver(job, row)]

    def _refuse(self, jobs: Sequence[Job], reason: str) -> list[Pending]:
        if jobs:
            self._metrics.request_failed("inference", sum(job.copies for job in jobs))
            self._metrics.queue_size(len(self._dispatch))
        return self._deliver(jobs, [InferenceError(reason) for _ in jobs])

    def _finish(self, done: list[Pending]) -> None:
        """What is done without the lock: wakes those who wait, and tells of a change of health."""
        for pending in done:
            pending.on_done()
        if self.healthy != self._was_healthy:
            self._was_healthy = self.healthy
            if self._was_healthy:
                logger.info("the engine is healthy again")
            else:
                logger.error("the engine is not healthy")
            self.on_health()

    # --- engines that hang, and others in their place -------------------------------------------------------------

    def tick(self, seconds: float) -> None:
        """So much time has passed: gives up what overran."""
        with self._changed:
            overrun = self._dispatch.pass_time(seconds)
            done: list[Pending] = []
            for flight in overrun:
                logger.error("a batch of %d tokens did not end in time", flight.tokens)
                if len(flight.jobs) == 1:
                    done += self._refuse(flight.jobs, TOO_LONG)
            if self._crew is not None and self._crew.hangs:
                done += self._give_up()
            self._repairing_s += seconds
            if self._crew is None and self._repairing_s > REPAIR_S:
                done += self._lose_hope()
            if overrun or self._dispatch.canary_due:
                self._changed.notify_all()
        self._finish(done)

    def _came_back(self, crew: Crew) -> None:
        """A thread that was taken to hang has returned."""
        logger.warning("a batch that was given up has ended")
        if self._crew is None and not crew.hangs and not crew.retired:
            self._serve(crew)

    def _give_up(self) -> list[Pending]:
        """Takes the engine out of service, and has another made."""
        self._crew, self._repairing_s = None, 0.0
        self._dispatch.leave_behind()
        if self._new_engine is None:
            return self._lose_hope()
        if sum(crew.hangs for crew in self._crews) > MOST_HANGING:
            logger.critical("too many engines hang: no other is made; restart the server")
            return self._lose_hope()
        if self._repair is None:
            logger.warning("the engine is replaced")
            self._repair = Repair(
                self._new_engine, needed=self._still_needs_engine, install=self._install, failed=self._not_repaired
            )
        return []

    def _lose_hope(self) -> list[Pending]:
        """Nobody is to wait for an engine."""
        self._hopeless = True
        return self._refuse(self._dispatch.clear(), NO_ENGINE)

    def _install(self, engine: Engine) -> bool:
        """Takes a new engine into service, unless there is one again or nothing to do for it."""
        with self._changed:
            needed = self._needs_engine()
            if needed:
                self._enlist(engine)
                self._metrics.engine_replaced()
        self._finish([])
        return needed

    def _still_needs_engine(self) -> bool:
        """What the repair asks; where the answer is no, it ends, and the next one will be another's."""
        with self._changed:
            needed = self._needs_engine()
            if not needed:
                self._repair = None
            return needed

    def _needs_engine(self) -> bool:
        return self._crew is None and not (self._closed and self._dispatch.idle)

    def _not_repaired(self) -> None:
        with self._changed:
            done = self._lose_hope() if self._crew is None else []
        self._finish(done)
