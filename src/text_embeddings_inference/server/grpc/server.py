"""The gRPC server on its port, beside HTTP, on the same event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ...errors import StartError
from ...inference import Model
from ...settings import Settings
from .health import Health
from .service import MAX_READ, METHODS, PACKAGE, Service, Unknown

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_READ),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)
LONGEST_CALL_S = 24 * 60 * 60
"""grpcio wants a number; what was accepted is answered, however long it takes."""


@asynccontextmanager
async def grpc_server(model: Model, settings: Settings) -> AsyncIterator[int]:
    """Serves until the end of its `with`, then lets running calls end; gives the port. Raises StartError."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((*Service(model, settings).handlers(), Unknown()))
    health = Health(model)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = [f"{PACKAGE}.{service}" for service in METHODS]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    port = _listen(server, settings)
    await health.start()
    await server.start()
    try:
        yield port
    finally:
        await health.stop()
        await server.stop(LONGEST_CALL_S)


def _listen(server: grpc.aio.Server, settings: Settings) -> int:
    place = f"{settings.address}:{settings.grpc_port}"
    try:
        if settings.tls_cert is None or settings.tls_key is None:
            return int(server.add_insecure_port(place))
        pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
        return int(server.add_secure_port(place, grpc.ssl_server_credentials([pair])))
    except (RuntimeError, OSError) as error:
        raise StartError(f"Could not bind gRPC on {place}", hint="choose another port with --grpc-port") from error
