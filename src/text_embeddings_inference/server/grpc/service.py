"""The services of tei.v1 as data, and what happens around every call: key, message, status, metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from ...inference.model import Answer, Model
from ...settings import Settings
from ...telemetry.tracing import PARENT, parse_traceparent
from ..accounting import Served, usage_headers
from ..auth import Keys
from ..http.memory_budget import MemoryBudget, Share
from . import tei_pb2 as tei
from .calls import CALLS, Call, Reply
from .limits import MAX_MESSAGE, MAX_STREAM, MAX_STREAMS, Untaken, Waits
from .rerank import rerank, rerank_stream
from .statuses import Context, RefusedError, refusal, with_status
from .strangers import Strangers
from .streams import Ahead, in_order

PACKAGE = "tei.v1"
UNARY: Mapping[str, Call] = {**CALLS, "Rerank/Rerank": Call(tei.RerankRequest, rerank)}
SERVICES = [tei.DESCRIPTOR.services_by_name[name].full_name for name in tei.DESCRIPTOR.services_by_name]
UNKNOWN = RefusedError("UNIMPLEMENTED", "")
NO_KEY = RefusedError("UNAUTHENTICATED", "No valid auth token")


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The calls to a model as gRPC methods. Who may call is decided before a message is received."""

    def __init__(
        self, model: Model, settings: Settings, budget: MemoryBudget, untaken: Untaken, strangers: Strangers
    ) -> None:
        self._served = Served.of(model, settings)
        self._keys = Keys(settings.server.api_key)
        self._traces = model.tracer is not None
        self._timeouts = settings.server.client_timeout, settings.server.keep_alive_timeout
        self._most_calls = settings.limits.max_connections
        self._most_ahead = settings.server.grpc_max_parallel_stream_requests
        self._budget = budget
        self._untaken = untaken
        self._strangers = strangers
        self._arrivals, self._items = Waits(), Waits()
        self._running = self._streams = 0
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}
        for name, call in UNARY.items():
            self._handlers[f"/{PACKAGE}.{name}"] = self._unary(call)
            if call.streams:
                self._handlers[f"/{PACKAGE}.{name}Stream"] = self._stream(call)
        self._handlers[f"/{PACKAGE}.Rerank/RerankStream"] = self._rerank_stream()

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        """What handles a call; runs in the task that the call has to its end."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            return refusal(UNKNOWN)
        metadata = list(handler_call_details.invocation_metadata or ())
        if self._keys.required and not self._keys.accept(_authorization(metadata)):
            return refusal(NO_KEY)
        if self._running >= self._most_calls:
            problem = f"there are {self._most_calls} calls already"
            return refusal(RefusedError("RESOURCE_EXHAUSTED", problem))
        if self._traces:
            PARENT.set(parse_traceparent(str(dict(metadata).get("traceparent", ""))))
        self._running += 1
        _this_task().add_done_callback(self._end)
        return handler

    def stop(self) -> None:
        """Reads no further items of streams: when those read are answered, the calls end."""
        self._items.close()

    def _end(self, _: object) -> None:
        self._running -= 1

    def _unary(self, call: Call) -> grpc.RpcMethodHandler:
        async def answer(context: Context) -> Reply:
            async with self._arrivals.wait(self._timeouts[0]):
                content = await context.read()
            if content is grpc.aio.EOF:
                raise RefusedError("INTERNAL", "Missing request message.")
            with Share(self._budget) as share:
                share.take(len(content))
                return await call.answer(self._served, decode(content, call.request), None)

        return self._answering(answer)

    def _rerank_stream(self) -> grpc.RpcMethodHandler:
        async def answer(context: Context) -> Reply:
            with self._ahead() as ahead, Share(self._budget) as share:
                requests = self._requests(context, tei.RerankStreamRequest)
                return await rerank_stream(self._served, requests, ahead, share)

        return self._answering(answer)

    def _answering(self, answer: Callable[[Context], Coroutine[Any, Any, Reply]]) -> grpc.RpcMethodHandler:
        """A call with one answer. To gRPC it is always a stream of requests: then its messages come when asked for."""

        async def serve(context: Context) -> bytes:
            self._strangers.know(peer := context.peer())
            reply = await answer(context)
            await send_costs(context, reply)
            taken = ExitStack()
            taken.enter_context(self._untaken.held(len(reply.wire), peer))
            _this_task().add_done_callback(lambda _: taken.close())
            return reply.wire

        return grpc.stream_unary_rpc_method_handler(with_status(serve))

    def _stream(self, call: Call) -> grpc.RpcMethodHandler:
        async def answer(request: Message) -> Reply:
            if not call.takes_permit:
                return await call.answer(self._served, request, None)
            with await self._served.model.wait_for_permits(1) as permit:
                return await call.answer(self._served, request, permit)

        async def serve(context: Context) -> None:
            self._strangers.know(peer := context.peer())
            with self._ahead() as ahead:
                async for reply in in_order(self._requests(context, call.request), answer, ahead):
                    with self._untaken.held(len(reply.wire), peer):
                        await context.write(reply.wire)

        return grpc.stream_stream_rpc_method_handler(with_status(serve))

    async def _requests(self, context: Context, request: type[Message]) -> AsyncIterator[Any]:
        """The messages of a stream."""
        while True:
            async with self._items.wait(self._timeouts[1]):
                content = await context.read()
            if content is grpc.aio.EOF:
                return
            yield decode(content, request)

    @contextmanager
    def _ahead(self) -> Iterator[Ahead]:
        """How far one more stream may be read ahead."""
        self._streams += 1
        try:
            yield Ahead(self._most_ahead, lambda: min(MAX_STREAM, MAX_STREAMS // self._streams), _size)
        finally:
            self._streams -= 1


async def send_costs(context: Context, reply: Reply) -> None:
    """What the call cost, as initial metadata with the names of the HTTP headers."""
    if reply.done is not None:
        headers = usage_headers(reply.done)
        await context.send_initial_metadata([(name.decode(), value.decode()) for name, value in headers])


def decode(content: bytes, request: type[Message]) -> Message:
    """The message. Raises RefusedError where it is too long, DecodeError where it is none."""
    if len(content) > MAX_MESSAGE:
        problem = f"found {len(content)} bytes, the limit is: {MAX_MESSAGE} bytes"
        raise RefusedError("OUT_OF_RANGE", f"Error, message length too large: {problem}")
    return request.FromString(content)


def _size(item: Message | Reply | Answer[Any]) -> int:
    """Bytes of a request or of its answer; those of a rank are few."""
    if isinstance(item, Reply):
        return len(item.wire)
    return item.ByteSize() if isinstance(item, Message) else 0


def _authorization(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """What is sent as `authorization`: several that differ are a list, as over HTTP, which is no key."""
    found = dict.fromkeys(value for name, value in metadata if name == "authorization")
    return b", ".join(value if isinstance(value, bytes) else value.encode() for value in found)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
