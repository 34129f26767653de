"""Serving over HTTP: sockets, TLS, signals, and a shutdown that lets running requests end."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop
from starlette.types import ASGIApp

from ..errors import StartError
from ..inference import Model
from ..settings import Settings
from .app import create_app
from .metrics import metrics_app
from .protocol import HttpProtocol

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 600
"""text-embeddings-inference never closes an idle connection; this is longer than clients keep theirs in their pools."""
BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound and not yet listening: whoever connects is refused until the model is ready.

    metrics: where the metrics are served a second time.
    """

    http: socket.socket
    metrics: socket.socket

    @staticmethod
    def bind(settings: Settings) -> Sockets:
        """Takes the addresses that the server will listen on. Raises StartError where one is in use."""
        try:
            metrics = _bind(settings.address, settings.prometheus_port)
        except OSError as error:
            cause = OSError(f"failed to create HTTP listener: {_text(error)}")
            hint = "choose another port with --prometheus-port; 0 takes any free one"
            raise StartError("failed to build prometheus recorder", hint=hint) from cause
        place = str(settings.listen_uds or f"{settings.address}:{settings.port}")
        try:
            if settings.listen_uds is None:
                return Sockets(_bind(settings.address, settings.port), metrics)
            return Sockets(_bind_unix(settings.listen_uds), metrics)
        except OSError as error:
            metrics.close()
            raise StartError(f"Could not bind TCP Listener on {place}") from OSError(_text(error))

    @property
    def place(self) -> str:
        """Where HTTP is served, for people."""
        name = self.http.getsockname()
        return str(name) if self.http.family == socket.AF_UNIX else f"{name[0]}:{name[1]}"

    def close(self) -> None:
        if self.http.family == socket.AF_UNIX and self.http.fileno() >= 0:
            Path(self.http.getsockname()).unlink(missing_ok=True)
        self.http.close()
        self.metrics.close()


def serve(models: Mapping[str, Model], settings: Settings, sockets: Sockets | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then answers what was accepted, closes the models and returns.

    sockets: bound before the models were loaded, so that a port in use was found at once. Raises StartError.
    """
    sockets = sockets or Sockets.bind(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(models, settings, sockets))
    finally:
        sockets.close()


async def _serve(models: Mapping[str, Model], settings: Settings, sockets: Sockets) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        if not stop.is_set():
            logger.info("signal received, starting graceful shutdown")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        metrics = next(iter(models.values())).metrics
        listeners = [
            Listener(metrics_app(metrics), sockets.metrics),
            Listener(create_app(models, settings), sockets.http, tls=(settings.tls_cert, settings.tls_key)),
        ]
        for listener in listeners:
            await listener.start()
        logger.info("Starting HTTP server: %s", sockets.place)
        logger.info("Ready")
        await stop.wait()
        await asyncio.gather(*(listener.stop() for listener in listeners))
    finally:
        for model in models.values():
            await model.close()


class Listener:
    """uvicorn on one socket, without its signal handlers: they are ours."""

    def __init__(self, app: ASGIApp, bound: socket.socket, tls: tuple[Path | None, Path | None] = (None, None)) -> None:
        """tls: certificate chain and private key."""
        self._socket = bound
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                proxy_headers=False,
                server_header=False,
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                ssl_certfile=tls[0],
                ssl_keyfile=tls[1],
            )
        )
        self._clock: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises StartError."""
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
        self._clock = asyncio.create_task(self._keep_date())

    async def stop(self) -> None:
        """Closes the socket and idle connections, and lets running requests end, however long they take."""
        await self._server.shutdown(sockets=[self._socket])
        if self._clock is not None:
            self._clock.cancel()

    async def _keep_date(self) -> None:
        """Keeps the header `date` true."""
        while True:
            await self._server.on_tick(0)
            await asyncio.sleep(1)


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
