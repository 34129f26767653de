"""The services that need no key: grpc.health.v1 as text-embeddings-inference answers it, and reflection.

Nothing about their clients is known, so each call has little time, or makes place for newer ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from ...inference import tasks
from ...inference.model import Model
from ...inference.tasks import Task
from ...types import ModelInfo
from .limits import Waits
from .statuses import Context, RefusedError, with_status

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
ALWAYS = ("", "tei.v1.Info", "tei.v1.Tokenize")
TASKS: Mapping[str, Callable[[ModelInfo], tuple[Task[Any], ...]]] = {
    "tei.v1.Embed": lambda info: (tasks.embed(normalize=False), tasks.embed_all(info)),
    "tei.v1.Predict": lambda info: (tasks.predict(info),),
    "tei.v1.Rerank": lambda info: (tasks.rerank(),),
}
"""Service -> what it does. It serves, as long as the engine is healthy, if the model refuses not all of that."""
REQUEST_S = 5.0
"""Seconds in which the request of a call must be there."""
MAX_WATCHES = 256
"""Clients that watch at a time; one more ends the oldest."""
MAX_REFLECTIONS = 16
"""The same of reflection."""
REFLECTION_S = 60.0
"""Seconds a call of reflection may take."""

Serve: TypeAlias = Callable[[Context], Coroutine[Any, Any, None]]


class Public(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Health and reflection of a model's server."""

    def __init__(self, model: Model, services: list[str]) -> None:
        """services: names that reflection lists besides its own."""
        self._model = model
        self._reflection = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME])
        self._requests = Waits()
        self._watches = Waits(MAX_WATCHES)
        self._reflections = Waits(MAX_REFLECTIONS)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        """Of the next change of a status; each change has its own."""
        self._stopped = False
        model.watch_health(self._notice)
        self._handlers = {
            "/grpc.health.v1.Health/Check": _handler(self._check, HealthCheckRequest),
            "/grpc.health.v1.Health/Watch": _handler(self._watch, HealthCheckRequest),
            f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": _handler(self._reflect, ServerReflectionRequest),
        }

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)

    def stop(self) -> None:
        """No service serves any more. Those who watch are told so, and their calls end."""
        self._stopped = True
        self._change()
        self._watches.close(after=REQUEST_S)
        self._reflections.close()

    async def _check(self, context: Context) -> None:
        service = await self._asked(context)
        if service not in (*ALWAYS, *TASKS):
            raise RefusedError("NOT_FOUND", "service not registered")
        await context.write(HealthCheckResponse(status=self._status(service)))

    async def _watch(self, context: Context) -> None:
        service, told = await self._asked(context), None
        async with self._watches.wait(None):
            while not (self._stopped and told == NOT_SERVING):
                changed, status = self._changed, self._status(service)
                if status != told:
                    await context.write(HealthCheckResponse(status=status))
                    told = status
                else:
                    await changed.wait()

    async def _reflect(self, context: Context) -> None:
        async with self._reflections.wait(REFLECTION_S):
            async for response in self._reflection.ServerReflectionInfo(_messages(context), context):
                await context.write(response)

    async def _asked(self, context: Context) -> str:
        """The service that the request of a call names."""
        async with self._requests.wait(REQUEST_S):
            request = await context.read()
        return "" if request is grpc.aio.EOF else str(request.service)

    def _status(self, service: str) -> HealthCheckResponse.ServingStatus:
        if self._stopped:
            return NOT_SERVING
        if service in ALWAYS:
            return SERVING
        if service not in TASKS:
            return HealthCheckResponse.SERVICE_UNKNOWN
        info = self._model.info
        serves = any(task.refuses(info) is None for task in TASKS[service](info))
        return SERVING if serves and self._model.healthy else NOT_SERVING

    def _notice(self) -> None:
        """Called by any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._change)

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _messages(context: Context) -> AsyncIterator[Any]:
    while (message := await context.read()) is not grpc.aio.EOF:
        yield message


def _handler(serve: Serve, request: type[Message]) -> grpc.RpcMethodHandler:
    """A call of any kind: its messages are received when `serve` asks for them."""

    return grpc.stream_stream_rpc_method_handler(
        with_status(serve),
        request_deserializer=request.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )
