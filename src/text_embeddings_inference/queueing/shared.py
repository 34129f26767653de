"""What the threads of a runner share: the queue and the batches in the engines, under one lock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import InferenceError
from ..telemetry.metrics import Metrics
from ..telemetry.throttle import ErrorLog
from .dispatch import Dispatch
from .jobs import Job, JobGroup, Row

logger = logging.getLogger(__name__)


class Shared:
    """A dispatch and its lock. Everything but `changing` and the constructor is used with the lock held."""

    def __init__(self, dispatch: Dispatch, metrics: Metrics) -> None:
        self.dispatch = dispatch
        self.changed = threading.Condition()
        """The lock; notified where a thread that waits may have something to do."""
        self.closed = False
        """Nothing is taken any more."""
        self.unavailable = False
        """No engine serves, and requests are not to wait for one."""
        self.on_health: Callable[[], object] = lambda: None
        """Called, without the lock, when `dispatch.healthy` has changed."""
        self._was_healthy = True
        self._done: list[JobGroup] = []  # answered; `on_done` is to be called
        self._metrics = metrics
        self._errors = ErrorLog(logger)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """The lock; once it is released, `on_done` of the groups that were answered is called, and `on_health`.

        A callback that raises is logged, and keeps no other from being called."""
        callbacks: list[Callable[[], object]] = []
        try:
            with self.changed:
                try:
                    yield
                finally:
                    callbacks += [group.on_done for group in self._done]
                    self._done.clear()
                    if self._health_changed():
                        callbacks.append(self.on_health)
        finally:
            for callback in callbacks:
                try:
                    callback()
                except Exception:
                    self._errors.exception("an answer could not be handed over")

    def answer(self, answers: Iterable[tuple[Job, Row | InferenceError]]) -> None:
        """Answers jobs. Used in `changing`, which then calls `on_done` of complete groups."""
        self._done += [job.group for job, row in answers if job.group.deliver(job, row)]

    def refuse(self, jobs: Sequence[Job], message: str) -> None:
        """Answers jobs that do not run any more, in `changing`."""
        if jobs:
            self._metrics.queue_size(len(self.dispatch))
        self.answer((job, InferenceError(message)) for job in jobs)

    def _health_changed(self) -> bool:
        healthy = self.dispatch.healthy
        if healthy == self._was_healthy:
            return False
        self._was_healthy = healthy
        if healthy:
            logger.info("the engine is healthy again")
        else:
            logger.error("the engine is not healthy")
        return True
