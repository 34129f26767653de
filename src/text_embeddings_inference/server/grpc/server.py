"""The gRPC server on its port, beside HTTP, on the same event loop."""

from __future__ import annotations

from typing import Self

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
"""grpcio wants a number; what was accepted is answered, however long it takes, unless the server is `cut`."""


class GrpcServer:
    """Serves until the end of its `with`, then lets running calls end. port: there once it serves."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.port = 0
        self._settings = settings
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=settings.limits.max_connections)
        self._server.add_generic_rpc_handlers((*Service(model, settings).handlers(), Unknown()))
        self._health = Health(model)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [f"{PACKAGE}.{service}" for service in METHODS]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)

    async def __aenter__(self) -> Self:
        """Listens. Raises StartError."""
        self.port = _listen(self._server, self._settings)
        await self._health.start()
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._health.stop()
        await self._server.stop(LONGEST_CALL_S)

    async def cut(self) -> None:
        """Ends the calls, whatever is going on in them; may be called while `__aexit__` waits for them."""
        await self._server.stop(None)


def _listen(server: grpc.aio.Server, settings: Settings) -> int:
    place = f"{settings.server.address}:{settings.server.grpc_port}"
    try:
        if settings.server.tls_cert is None or settings.server.tls_key is None:
            return int(server.add_insecure_port(place))
        pair = (settings.server.tls_key.read_bytes(), settings.server.tls_cert.read_bytes())
        return int(server.add_secure_port(place, grpc.ssl_server_credentials([pair])))
    except (RuntimeError, OSError) as error:
        raise StartError(f"Could not bind gRPC on {place}", hint="choose another port with --grpc-port") from error
