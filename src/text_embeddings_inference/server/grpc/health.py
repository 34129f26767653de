"""grpc.health.v1 as text-embeddings-inference answers it: a status for each service of tei.v1."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from ...inference import Model
from ...types import Kind

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
ALWAYS = ("", "tei.v1.Info", "tei.v1.Tokenize")
KINDS = {
    "tei.v1.Embed": {Kind.EMBEDDING},
    "tei.v1.Predict": {Kind.CLASSIFIER, Kind.RERANKER},
    "tei.v1.Rerank": {Kind.RERANKER},
}
"""Service -> the kinds of models whose engine's state is its own; with others it does not serve."""


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpcio-health-checking has no types
    """Keeps the statuses true while it runs."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the name is grpcio\'s
        if request.service not in (*ALWAYS, *KINDS):
            await context.abort(grpc.StatusCode.NOT_FOUND, "service not registered")
        return await super().Check(request, context)

    async def start(self) -> None:
        for service in ALWAYS:
            await self.set(service, SERVING)
        self._model.watch_health(self._notice)
        await self._look()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.enter_graceful_shutdown()

    def _notice(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._look()

    async def _look(self) -> None:
        state = SERVING if self._model.healthy else NOT_SERVING
        for service, kinds in KINDS.items():
            await self.set(service, state if self._model.info.kind in kinds else NOT_SERVING)
