"""Serving over HTTP: sockets, TLS, signals, and a shutdown that lets running requests end."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import uvicorn
import uvloop

from ..errors import StartError
from ..inference import Model
from ..settings import Settings
from .addresses import place
from .app import create_app
from .http.asgi import ASGIApp
from .http.memory_budget import SPARE_FILES, raise_file_limit
from .http.protocol import HttpProtocol
from .http.timeouts import Patience
from .metrics import metrics_app
from .shutdown import Cuttable, Ending

logger = logging.getLogger(__name__)

BACKLOG = 4096
TICK_S = 1.0
GRPC_SHARE = 4
"""One in so many connections may be to the gRPC port: each carries many calls."""
SWEPT_AT_ONCE = 500
"""Connections looked at before requests have their turn: about half a millisecond."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound and not yet listening: whoever connects is refused until the model is ready.

    metrics: where the metrics are served a second time; path: of the Unix socket, if `http` is one.
    """

    http: socket.socket
    metrics: socket.socket
    path: Path | None = None

    @staticmethod
    def bind(settings: Settings) -> Sockets:
        """Takes the addresses that the server will listen on. Raises StartError where one is in use."""
        try:
            metrics = _bind(settings.server.address, settings.telemetry.prometheus_port)
        except OSError as error:
            cause = OSError(f"failed to create HTTP listener: {_text(error)}")
            hint = "choose another port with --prometheus-port; 0 takes any free one"
            raise StartError("failed to build prometheus recorder", hint=hint) from cause
        where = str(settings.server.listen_uds or place(settings.server.address, settings.server.port))
        try:
            if settings.server.listen_uds is None:
                return Sockets(_bind(settings.server.address, settings.server.port), metrics)
            return Sockets(_bind_unix(settings.server.listen_uds), metrics, settings.server.listen_uds)
        except OSError as error:
            metrics.close()
            raise StartError(f"Could not bind TCP Listener on {where}") from OSError(_text(error))

    @property
    def place(self) -> str:
        """Where HTTP is served, for people."""
        return str(self.path or place(*self.http.getsockname()[:2]))

    def close(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.http.close()
        self.metrics.close()


def serve(models: Mapping[str, Model], settings: Settings, sockets: Sockets | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then answers what was accepted, closes the models and returns.

    A second signal ends the process at once.

    sockets: bound before the models were loaded, so that a port in use was found at once. Raises StartError.
    """
    sockets = sockets or Sockets.bind(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(models, settings, sockets))
    finally:
        sockets.close()


async def _serve(models: Mapping[str, Model], settings: Settings, sockets: Sockets) -> None:
    async with AsyncExitStack() as stack:  # undone in reverse: the metrics are there until the last request has ended
        ending = stack.enter_context(Ending(clean_up=sockets.close))
        for model in models.values():
            stack.push_async_callback(model.close)
        metrics = next(iter(models.values())).metrics
        patience = Patience.of(settings)
        figures = Listener(metrics_app(metrics), sockets.metrics, patience, connections=SPARE_FILES // 2)
        await stack.enter_async_context(figures)
        most = raise_file_limit(settings.limits.max_connections)
        tls = (settings.server.tls_cert, settings.server.tls_key)
        of_grpc = 0 if settings.server.grpc_port is None else max(1, most // GRPC_SHARE)
        http = Listener(create_app(models, settings), sockets.http, patience, connections=most - of_grpc, tls=tls)
        await stack.enter_async_context(http)
        servers: list[Cuttable] = [figures, http]
        if settings.server.grpc_port is not None:
            from .grpc.server import GrpcServer  # grpcio takes 0.1 s to import

            grpc = await stack.enter_async_context(GrpcServer(next(iter(models.values())), settings, of_grpc))
            servers.append(grpc)
            logger.info("Starting gRPC server: %s", place(settings.server.address, grpc.port))
        logger.info("Starting HTTP server: %s", sockets.place)
        logger.info("Ready")
        await ending.wait()
        http.stop_accepting()
        if settings.server.shutdown_grace is not None:
            ending.cut_short(models.values(), servers, after=settings.server.shutdown_grace)


class Listener:
    """uvicorn on one socket, without its signal handlers: they are ours."""

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        patience: Patience,
        *,
        connections: int,
        tls: tuple[Path | None, Path | None] = (None, None),
    ) -> None:
        """connections: at most; tls: certificate chain and private key."""
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
                ssl_certfile=tls[0],
                ssl_keyfile=tls[1],
            )
        )
        self._clock: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listens. Raises StartError."""
        config = self._server.config
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise StartError(
                f"can't use the certificate {config.ssl_certfile} with the key {config.ssl_keyfile}"
            ) from error
        self._server.lifespan = config.lifespan_class(config)
        try:
            await self._server.startup(sockets=[self._socket])
        except OSError as error:  # another process bound the address too, and listened first
            raise StartError("Could not listen") from OSError(_text(error))
        self._clock = asyncio.create_task(self._tick())
        return self

    def stop_accepting(self) -> None:
        """Closes the socket; connections stay."""
        for server in self._server.servers:
            server.close()

    async def cut(self) -> None:
        """Ends the connections, whatever is going on in them."""
        self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            assert isinstance(connection, HttpProtocol)
            connection.transport.abort()
        for task in list(self._server.server_state.tasks):
            task.cancel()

    async def __aexit__(self, *_: object) -> None:
        """Closes the socket and idle connections, and lets running requests end, unless they are `cut`.

        Slow clients hold it up no longer than they may at any time.
        """
        await self._server.shutdown(sockets=[self._socket])
        if self._clock is not None:
            self._clock.cancel()

    async def _tick(self) -> None:
        """Keeps the header `date` true, and ends the connections of clients that take too long."""
        loop = asyncio.get_running_loop()
        while True:
            await self._server.on_tick(0)
            for number, connection in enumerate(list(self._server.server_state.connections), 1):
                assert isinstance(connection, HttpProtocol)
                connection.sweep(loop.time(), self._patience)
                if number % SWEPT_AT_ONCE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(TICK_S)


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


def _bind_unix(path: Path) -> socket.socket:
    """Takes the place of a socket that nobody listens on any more."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and bound.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    return bound


def _text(error: OSError) -> str:
    """As text-embeddings-inference words it."""
    return f"{error.strerror} (os error {error.errno})"
