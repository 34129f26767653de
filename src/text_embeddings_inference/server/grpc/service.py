"""The services of tei.v1 as data, and what happens around every call: key, decoding, status, metadata."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from ...errors import RequestError, presentation
from ...inference import Model
from ...inference.admission import Permit
from ...settings import Settings
from ...telemetry.tracing import PARENT, parse_traceparent
from ..api.responses import usage_headers
from ..auth import Keys
from . import tei_pb2 as tei
from .calls import Calls, RefusedError, Reply
from .streams import in_order

logger = logging.getLogger(__name__)

Context: TypeAlias = Any
"""`grpc.aio.ServicerContext`; grpcio has no types."""
Call: TypeAlias = Callable[[Calls, Any, Permit | None], Coroutine[Any, Any, Reply]]

MAX_MESSAGE = 4 << 20
"""Bytes of a request message, as in text-embeddings-inference."""
MAX_READ = MAX_MESSAGE << 2
"""What is read of a message that is too long, so that the answer can tell its length."""
PACKAGE = "tei.v1"


@dataclass(frozen=True, slots=True)
class Method:
    """request: type of the message; call: what answers it; takes_permit: an item of a stream waits for one."""

    request: type[Message]
    call: Call
    takes_permit: bool = True


METHODS: Mapping[str, Mapping[str, Method]] = {
    "Info": {"Info": Method(tei.InfoRequest, Calls.info)},
    "Embed": {
        "Embed": Method(tei.EmbedRequest, Calls.embed),
        "EmbedSparse": Method(tei.EmbedSparseRequest, Calls.embed_sparse),
        "EmbedAll": Method(tei.EmbedAllRequest, Calls.embed_all),
    },
    "Predict": {
        "Predict": Method(tei.PredictRequest, Calls.predict),
        "PredictPair": Method(tei.PredictPairRequest, Calls.predict_pair),
    },
    "Rerank": {"Rerank": Method(tei.RerankRequest, Calls.rerank)},
    "Tokenize": {
        "Tokenize": Method(tei.EncodeRequest, Calls.tokenize, takes_permit=False),
        "Decode": Method(tei.DecodeRequest, Calls.decode, takes_permit=False),
    },
}
"""Service -> unary method; those of Embed, Predict and Tokenize have a twin with `Stream` behind its name."""

STREAMING = ("Embed", "Predict", "Tokenize")


class Service:
    """The calls to a model as gRPC methods."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._calls = Calls(model, settings)
        self._keys = Keys(settings.server.api_key)
        self._most = settings.server.grpc_max_parallel_stream_requests
        self._traces = model.tracer is not None

    def handlers(self) -> Iterable[grpc.GenericRpcHandler]:
        """Of all services of the package."""
        for service, methods in METHODS.items():
            found = {name: self._unary(method) for name, method in methods.items()}
            if service in STREAMING:
                found |= {f"{name}Stream": self._stream(method) for name, method in methods.items()}
            if service == "Rerank":
                found["RerankStream"] = self._rerank_stream()
            yield grpc.method_handlers_generic_handler(f"{PACKAGE}.{service}", found)

    def _unary(self, method: Method) -> grpc.RpcMethodHandler:
        async def handle(request: Any, context: Context) -> bytes:
            try:
                self._let_in(context)
                reply = await method.call(self._calls, _readable(request), None)
            except Exception as error:  # whatever happens, the client gets a status
                await abort(context, error)
            await send_costs(context, reply)
            return reply.wire

        return grpc.unary_unary_rpc_method_handler(handle, request_deserializer=_reader(method.request))

    def _stream(self, method: Method) -> grpc.RpcMethodHandler:
        async def answer(request: Any) -> Reply:
            if not method.takes_permit:
                return await method.call(self._calls, _readable(request), None)
            with await self._calls.model.wait_for_permits(1) as permit:
                return await method.call(self._calls, _readable(request), permit)

        async def handle(requests: Any, context: Context) -> AsyncIterator[bytes]:
            try:
                self._let_in(context)
                async for reply in in_order(requests, answer, self._most):
                    yield reply.wire
            except Exception as error:
                await abort(context, error)

        return grpc.stream_stream_rpc_method_handler(handle, request_deserializer=_reader(method.request))

    def _rerank_stream(self) -> grpc.RpcMethodHandler:
        async def handle(requests: Any, context: Context) -> bytes:
            try:
                self._let_in(context)
                reply = await self._calls.rerank_stream(_readable_ones(requests), self._most)
            except Exception as error:
                await abort(context, error)
            await send_costs(context, reply)
            return reply.wire

        return grpc.stream_unary_rpc_method_handler(handle, request_deserializer=_reader(tei.RerankStreamRequest))

    def _let_in(self, context: Context) -> None:
        """Raises RefusedError unless the call has a key; keeps whose trace it belongs to."""
        if not (self._keys.required or self._traces):
            return
        metadata = dict(context.invocation_metadata() or ())
        if self._traces:
            PARENT.set(parse_traceparent(str(metadata.get("traceparent", ""))))
        if self._keys.required and not self._keys.accept(metadata.get("authorization", "").encode()):
            raise RefusedError("UNAUTHENTICATED", "No valid auth token")


class Unknown(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Answers what no service knows, without a message."""

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        async def handle(requests: Any, context: Context) -> AsyncIterator[bytes]:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
            yield b""

        return grpc.stream_stream_rpc_method_handler(handle)


async def abort(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the status of the error."""
    if isinstance(error, RefusedError):
        code = error.code
    elif isinstance(error, RequestError):
        code = presentation(error).grpc_code
    else:
        logger.error("a call failed: %s", error, exc_info=error)
        code, error = "INTERNAL", RefusedError("INTERNAL", "internal error")
    await context.abort(grpc.StatusCode[code], str(error))
    raise AssertionError  # abort raises


async def send_costs(context: Context, reply: Reply) -> None:
    """What the call cost, as initial metadata with the names of the HTTP headers."""
    if reply.done is not None:
        headers = usage_headers(reply.done)
        await context.send_initial_metadata([(name.decode(), value.decode()) for name, value in headers])


def _reader(request: type[Message]) -> Callable[[bytes], Message | RefusedError]:
    """Decodes a message; what can't be read becomes the error that the call ends with."""

    def read(content: bytes) -> Message | RefusedError:
        if len(content) > MAX_MESSAGE:
            problem = f"found {len(content)} bytes, the limit is: {MAX_MESSAGE} bytes"
            return RefusedError("OUT_OF_RANGE", f"Error, message length too large: {problem}")
        try:
            return request.FromString(content)
        except DecodeError as error:
            return RefusedError("INTERNAL", f"failed to decode Protobuf message: {error}")

    return read


def _readable(request: Any) -> Any:
    """Raises RefusedError for a message that could not be decoded."""
    if isinstance(request, RefusedError):
        raise request
    return request


async def _readable_ones(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)
