"""Serving over HTTP: sockets, TLS, signals, and a shutdown that lets running requests end."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, closing
from functools import partial
from typing import Any, Self, cast

import uvicorn
import uvloop

from ..errors import StartError
from ..inference.model import Model
from ..settings import Settings
from .addresses import place
from .app import create_app
from .http.asgi import ASGIApp
from .http.memory_budget import SPARE_FILES, raise_file_limit
from .http.protocol import HttpProtocol
from .http.timeouts import Patience
from .metrics import metrics_app
from .shutdown import Abortable, Shutdown
from .sockets import Sockets, explained, warn_of_metrics_port

logger = logging.getLogger(__name__)

BACKLOG = 4096
TICK_S = 1.0
GRPC_SHARE = 4
"""One in so many connections may be to the gRPC port: each carries many calls."""
COMPLAIN_EVERY_S = 60.0
"""Of a fault that comes at every tick."""
SWEPT_AT_ONCE = 500
"""Connections looked at before requests have their turn: about half a millisecond."""


def serve(models: Mapping[str, Model], settings: Settings, sockets: Sockets | None = None) -> None:
    """Serves until SIGINT, SIGTERM or SIGQUIT, then answers what was accepted, closes the models and returns.

    A second signal ends the process at once.

    sockets: bound before the models were loaded, so that a port in use was found at once; the caller closes them.
    Raises StartError.
    """
    with ExitStack() as stack:
        if sockets is None:
            sockets = stack.enter_context(closing(Sockets.bind(settings)))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        runner.run(_serve(models, settings, sockets))


async def _serve(models: Mapping[str, Model], settings: Settings, sockets: Sockets) -> None:
    """HTTP listens last, so that whoever gets an answer finds all ports; and stops first."""
    async with AsyncExitStack() as stack:  # undone in reverse: the metrics are there until the last request has ended
        certificates = sockets.certificates
        reload, tls = (None, None) if certificates is None else (certificates.reload, certificates.context)
        shutdown = stack.enter_context(Shutdown(sockets.close, reload))
        for model in models.values():
            stack.push_async_callback(model.close)
        model = next(iter(models.values()))
        patience = Patience.of(settings)
        servers: list[Abortable] = []
        figures = None
        if sockets.metrics is not None:
            figures = Listener(metrics_app(model.metrics), sockets.metrics, patience, connections=SPARE_FILES // 2)
            try:
                servers.append(await stack.enter_async_context(figures))
            except StartError as error:  # another process bound the port too, and listened first
                if settings.telemetry.prometheus_port is not None:
                    raise
                warn_of_metrics_port(error.__cause__ or error)
        most = raise_file_limit(settings.limits.max_connections)
        of_grpc = 0 if settings.server.grpc_port is None else max(1, most // GRPC_SHARE)
        if settings.server.grpc_port is not None:
            from .grpc.server import GrpcServer  # grpcio takes 0.1 s to import

            grpc = await stack.enter_async_context(GrpcServer(model, settings, of_grpc, certificates))
            servers.append(grpc)
            logger.info("Starting gRPC server: %s", place(settings.server.address, grpc.port))
        http = Listener(create_app(models, settings), sockets.http, patience, connections=most - of_grpc, tls=tls)
        servers.append(await stack.enter_async_context(http))
        logger.info("Starting HTTP server: %s", sockets.place)
        logger.info("Ready")
        await shutdown.wait()
        for server in servers:
            if server is not figures:
                server.stop_accepting()
        if settings.server.shutdown_grace is not None:
            shutdown.abort_after(settings.server.shutdown_grace, models.values(), servers)


class Listener:
    """uvicorn on one socket, without its signal handlers: they are ours."""

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        patience: Patience,
        *,
        connections: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """connections: at most."""
        self._socket = bound
        self._patience = patience
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=cast(Any, partial(HttpProtocol, most_connections=connections)),
                ws="none",
                lifespan="off",
                interface="asgi3",
                proxy_headers=False,
                server_header=False,
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )
        self._clock: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listens. Raises StartError."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        try:
            self._socket.listen(BACKLOG)  # uvloop would not tell that it failed
            await self._server.startup(sockets=[self._socket])
        except OSError as error:  # another process bound the address too, and listened first
            raise StartError("Could not listen") from explained(error)
        self._clock = asyncio.create_task(self._tick())
        return self

    def stop_accepting(self) -> None:
        """Closes the socket; connections stay."""
        for server in self._server.servers:
            server.close()

    async def abort(self) -> None:
        """Ends the connections, whatever is going on in them."""
        self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            assert isinstance(connection, HttpProtocol)
            connection.transport.abort()
        for task in list(self._server.server_state.tasks):
            task.cancel()

    async def __aexit__(self, *_: object) -> None:
        """Closes the socket and idle connections, and lets running requests end, unless they are aborted.

        Slow clients hold it up no longer than they may at any time.
        """
        await self._server.shutdown(sockets=[self._socket])
        if self._clock is not None:
            self._clock.cancel()

    async def _tick(self) -> None:
        """Keeps the header `date` true, and ends the connections of clients that take too long."""
        loop, complained_at = asyncio.get_running_loop(), -math.inf
        while True:
            try:
                await self._server.on_tick(0)
                for number, connection in enumerate(list(self._server.server_state.connections), 1):
                    assert isinstance(connection, HttpProtocol)
                    connection.sweep(loop.time(), self._patience)
                    if number % SWEPT_AT_ONCE == 0:
                        await asyncio.sleep(0)
            except Exception:  # the next tick may do better; without any, slow clients would stay for ever
                if loop.time() - complained_at >= COMPLAIN_EVERY_S:
                    complained_at = loop.time()
                    logger.exception("connections could not be looked at")
            await asyncio.sleep(TICK_S)
