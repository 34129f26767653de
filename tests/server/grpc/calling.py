"""A gRPC server on a free port for as long as a test runs, and grpcio's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from tests.fakes import PATIENCE, fake_model
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.grpc.server import GrpcServer
from text_embeddings_inference.server.grpc.service import PACKAGE
from text_embeddings_inference.server.http.memory_budget import MemoryBudget, UnsentAnswers
from text_embeddings_inference.server.tls import Certificates
from text_embeddings_inference.settings import Settings

T = TypeVar("T")


class Stub:
    """Calls methods by name: `await stub("Embed.Embed", request)`, `stub.stream("Embed.EmbedStream", requests)`."""

    def __init__(self, channel: grpc.aio.Channel, messages: Any, server: GrpcServer) -> None:
        self.channel = channel
        self.server = server
        self._messages = messages

    def __call__(self, name: str, request: Any, **options: Any) -> Any:
        return self.channel.unary_unary(_path(name), *self._coders(name))(request, timeout=PATIENCE, **options)

    def stream(self, name: str, requests: Any, **options: Any) -> Any:
        return self.channel.stream_stream(_path(name), *self._coders(name))(requests, timeout=PATIENCE, **options)

    def collect(self, name: str, requests: Any, **options: Any) -> Any:
        return self.channel.stream_unary(_path(name), *self._coders(name))(requests, timeout=PATIENCE, **options)

    def _coders(self, name: str) -> tuple[Any, Any]:
        service, method = name.split(".")
        found = self._messages.DESCRIPTOR.services_by_name[service].methods_by_name[method]
        response = getattr(self._messages, found.output_type.name)
        return lambda message: message.SerializeToString(), response.FromString


def _path(name: str) -> str:
    return f"/{PACKAGE}.{name.replace('.', '/')}"


@asynccontextmanager
async def calling(
    model: Model | None = None,
    connections: int = 100,
    budget: MemoryBudget | None = None,
    unsent: UnsentAnswers | None = None,
    **settings: Any,
) -> AsyncIterator[Stub]:
    """A client of a server of `model`; both are closed at the end."""
    from text_embeddings_inference.server.grpc import tei_pb2

    model = model or fake_model()
    defaults: dict[str, Any] = {"model_id": "fake/model", "hostname": "127.0.0.1", "grpc_port": 0}
    given = Settings.of(**(defaults | settings))
    most = given.limits.max_queued_bytes
    memory = budget or MemoryBudget(most), unsent or UnsentAnswers(most)
    try:
        async with (
            GrpcServer(model, given, connections, Certificates.of(given), *memory) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield Stub(channel, tei_pb2, server)
    finally:
        await model.close()


def run(test: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine, but not for ever."""
    return asyncio.run(asyncio.wait_for(test, PATIENCE))


async def status(call: Any) -> tuple[str, str]:
    """Code and message of a call that fails."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError("the call was answered")
