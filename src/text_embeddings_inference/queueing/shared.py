"""What the threads of a runner share: the queue and the batches in the engines, under one lock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import InferenceError
from ..telemetry.metrics import Metrics
from ..telemetry.throttle import ErrorLog
from .dispatch import Dispatch
from .jobs import Job, JobGroup, answer

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
        self._metrics = metrics
        self._errors = ErrorLog(logger)

    @contextmanager
    def changing(self) -> Iterator[list[JobGroup]]:
        """The lock, and a list for groups that are answered: these are told once it is released, as is a change of
        health. A callback that raises is logged, and keeps no other from being called."""
        done: list[JobGroup] = []
        callbacks: list[Callable[[], object]] = []
        try:
            with self.changed:
                try:
                    yield done
                finally:
                    callbacks += [group.on_done for group in done]
                    if self._health_changed():
                        callbacks.append(self.on_health)
        finally:
            for callback in callbacks:
                try:
                    callback()
                except Exception:
                    self._errors.exception("an answer could not be handed over")

    def refuse(self, jobs: Sequence[Job], message: str) -> list[JobGroup]:
        """Answers jobs that do not run any more; the groups that have all their answers now."""
        if jobs:
            self._metrics.queue_size(len(self.dispatch))
        return answer((job, InferenceError(message)) for job in jobs)

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
