"""How a call ends that can't be answered: a status code and a message."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn, TypeAlias

import grpc

from ...errors import RequestError, presentation

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
    if isinstance(error, RefusedError):
        code = error.code
    elif isinstance(error, RequestError):
        code = presentation(error).grpc_code
    elif isinstance(error, grpc.aio.InternalError):
        raise asyncio.CancelledError from error  # the connection ended while something was sent
    else:
        logger.error("a call failed: %s", error, exc_info=error)
        code, error = "INTERNAL", RefusedError("INTERNAL", "internal error")
    # grpcio keeps what it raises in a cycle, and frames of the error would keep the request until that is collected.
    error.__traceback__ = error.__cause__ = error.__context__ = None
    await context.abort(grpc.StatusCode[code], str(error))
    raise AssertionError  # abort raises


def refusal(error: Exception) -> grpc.RpcMethodHandler:
    """Ends a call of any kind with the status of the error; no message of it is received."""

    async def handle(requests: Any, context: Context) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(handle)
