"""Serving over HTTP: sockets, TLS, signals, and a shutdown that lets running requests end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, closing

import uvloop

from ..errors import StartError
from ..inference.model import Model
from ..settings import Settings
from .addresses import place
from .app import App, MetricsApp
from .connections import METRICS_CONNECTIONS, Connections
from .http.listener import Listener
from .http.memory_budget import MemoryBudget, UnsentAnswers
from .http.timeouts import Timeouts
from .shutdown import Abortable, Shutdown
from .sockets import Sockets, warn_of_metrics_port

logger = logging.getLogger(__name__)

GRPC_SHARE = 4
"""One in so many connections may be to the gRPC port: each carries many calls."""


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
        timeouts, most_bytes = Timeouts.of(settings), settings.limits.max_queued_bytes
        budget, unsent = MemoryBudget(most_bytes), UnsentAnswers(most_bytes)  # of all ports together
        servers: list[Abortable] = []
        figures = None
        if sockets.metrics is not None:
            few = Connections(METRICS_CONNECTIONS)
            figures = Listener(MetricsApp(model.metrics), sockets.metrics, timeouts, connections=few, unsent=unsent)
            try:
                servers.append(await stack.enter_async_context(figures))
            except StartError as error:  # another process bound the port too, and listened first
                if settings.telemetry.prometheus_port is not None:
                    raise
                warn_of_metrics_port(error.__cause__ or error)
        of_grpc = 0 if settings.server.grpc_port is None else max(1, sockets.connections // GRPC_SHARE)
        if settings.server.grpc_port is not None:
            from .grpc.server import GrpcServer  # grpcio takes 0.1 s to import

            grpc = await stack.enter_async_context(GrpcServer(model, settings, of_grpc, certificates, budget, unsent))
            servers.append(grpc)
            logger.info("Starting gRPC server: %s", place(settings.server.address, grpc.port))
        app, connections = App(models, settings, budget), Connections(sockets.connections - of_grpc)
        http = Listener(app, sockets.http, timeouts, connections=connections, unsent=unsent, tls=tls)
        servers.append(await stack.enter_async_context(http))
        logger.info("Starting HTTP server: %s", sockets.place)
        logger.info("Ready")
        await shutdown.wait()
        for server in servers:
            if server is not figures:
                server.stop_accepting()
        if settings.server.shutdown_grace is not None:
            shutdown.abort_after(settings.server.shutdown_grace, models.values(), servers)
