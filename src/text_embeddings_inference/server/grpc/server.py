"""The gRPC server on its port, beside HTTP, on the same event loop."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import grpc

from ...errors import StartError
from ...inference.model import Model
from ...settings import Settings
from ..addresses import place
from ..http.memory_budget import MemoryBudget, UnsentAnswers
from ..tls import Certificates
from .limits import MAX_CALLS_PER_CONNECTION, MAX_READ, Untaken
from .public import Public
from .service import SERVICES, Service
from .strangers import Strangers

HANDSHAKE_MS = 10_000
"""In which a connection must have become one of HTTP/2, through TLS where there is TLS."""
PING_TIMEOUT_MS = 20_000
"""In which a client must answer a ping."""
LONGEST_CALL_S = 24 * 60 * 60
"""grpcio wants a number; what was accepted is answered, however long it takes, unless the server is aborted."""


class GrpcServer:
    """Serves until the end of its `with`, then lets running calls end. port: there once it serves."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        connections: int,
        certificates: Certificates | None,
        budget: MemoryBudget,
        unsent: UnsentAnswers,
    ) -> None:
        """connections: at most; the next is closed when it is accepted; certificates: None for cleartext; budget,
        unsent: of all ports."""
        self.port = 0
        self._settings = settings
        self._certificates = certificates
        self._stopping: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._untaken = Untaken(settings.server.client_timeout, unsent)
        self._public = Public(model, SERVICES)
        self._strangers = Strangers(connections)
        self._service = Service(model, settings, budget, self._untaken, self._strangers)
        self._server = grpc.aio.server(options=_options(settings, connections))
        self._server.add_generic_rpc_handlers((self._public, self._service))

    async def __aenter__(self) -> Self:
        """Listens. Raises StartError."""
        try:
            self.port = self._untaken.port = _listen(self._server, self._settings, self._certificates)
        except StartError:
            await self._server.start()  # grpcio gives back only what was started, and must not be collected before
            await self._server.stop(None)
            raise
        await self._server.start()
        self._watching = asyncio.create_task(self._strangers.watch(self.port))
        return self

    def stop_accepting(self) -> None:
        """Refuses new calls; running ones go on."""
        self._stopping = asyncio.create_task(self.stop())

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Takes no further calls, and waits for the end of those that run."""
        self._public.stop()
        self._service.stop()
        await self._server.stop(LONGEST_CALL_S)
        if self._watching is not None:
            self._watching.cancel()

    async def abort(self) -> None:
        """Ends the calls, whatever is going on in them; may be called while `__aexit__` waits for them."""
        await self._server.stop(None)


def _options(settings: Settings, connections: int) -> list[tuple[str, Any]]:
    """Of gRPC's core: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""
    options = [
        ("grpc.max_receive_message_length", MAX_READ),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ]
    if settings.server.client_timeout is not None:  # how long a client may be silent while a call runs
        options.append(("grpc.keepalive_time_ms", settings.server.client_timeout * 1000))
    if settings.server.keep_alive_timeout is not None:
        options.append(("grpc.max_connection_idle_ms", settings.server.keep_alive_timeout * 1000))
    return options


def _listen(server: grpc.aio.Server, settings: Settings, certificates: Certificates | None) -> int:
    where = place(settings.server.address, settings.server.grpc_port or 0)
    try:
        if certificates is None:
            return int(server.add_insecure_port(where))
        return int(server.add_secure_port(where, _credentials(certificates)))
    except RuntimeError as error:
        raise StartError(f"Could not bind gRPC on {where}", hint="choose another port with --grpc-port") from error


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Those that new connections are served with; each handshake asks whether they have changed."""
    served = certificates.current

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        if served is certificates.current:
            return None
        served = certificates.current
        return grpc.ssl_server_certificate_configuration([(served.key, served.chain)])

    first = grpc.ssl_server_certificate_configuration([(served.key, served.chain)])
    return grpc.dynamic_ssl_server_credentials(first, changed)
