"""How a call ends that can't be answered: a status code and a message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from ...errors import RequestError, presentation

T = TypeVar("T")

logger = logging.getLogger(__name__)

Context: TypeAlias = Any
"""`grpc.aio.ServicerContext`; grpcio has no types."""


class RefusedError(Exception):
    """A call that ends with a status of its own; code: the name of the gRPC code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def abort(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the status of the error."""
    code, message = "INTERNAL", "internal error"
    if isinstance(error, RefusedError):
        code, message = error.code, str(error)
    elif isinstance(error, RequestError):
        code, message = presentation(error).grpc_code, str(error)
    elif isinstance(error, DecodeError):
        message = f"failed to decode Protobuf message: {error}"
    elif isinstance(error, grpc.aio.InternalError):
        raise asyncio.CancelledError from error  # the connection ended while something was sent
    else:
        logger.error("a call failed: %s", error, exc_info=error)
    # grpcio keeps what it raises in a cycle, and frames of the error would keep the request until that is collected.
    error.__traceback__ = error.__cause__ = error.__context__ = None
    await context.abort(grpc.StatusCode[code], message)
    raise AssertionError  # abort raises


def refusal(error: Exception) -> grpc.RpcMethodHandler:
    """Ends a call of any kind with the status of the error; no message of it is received."""

    async def handle(requests: Any, context: Context) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(handle)


def with_status(serve: Callable[[Context], Coroutine[Any, Any, T]]) -> Callable[[Any, Context], Coroutine[Any, Any, T]]:
    """What grpcio calls to serve a call: whatever happens, the client gets a status."""

    async def handle(requests: Any, context: Context) -> T:
        try:
            return await serve(context)
        except Exception as error:
            await abort(context, error)

    return handle
