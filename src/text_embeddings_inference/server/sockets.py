"""The sockets that a server listens on, and what encrypts them.

All this comes before the model is loaded, so that what stands in the way is found at once.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StartError
from ..settings import Settings
from ..settings.telemetry import METRICS_PORT
from .addresses import place
from .connections import raise_file_limit

if TYPE_CHECKING:
    from .tls import Certificates

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound and not yet listening: whoever connects is refused until the model is ready."""

    http: socket.socket
    """Where HTTP is served."""
    metrics: socket.socket | None
    """Where the metrics are served a second time; None if the default port for them is taken."""
    path: Path | None
    """Of the Unix socket, if `http` is one."""
    certificates: Certificates | None
    """For HTTP and gRPC; None: they are not encrypted."""
    connections: int
    """So many may be open to all ports but that of the metrics, by the limit of open files."""

    @staticmethod
    def bind(settings: Settings) -> Sockets:
        """Takes the addresses that the server will listen on, reads the certificates, raises the limit of open files.

        Raises StartError for an address that is in use, for what can't be used, and where too few files may be open.
        """
        connections = raise_file_limit(settings.limits.max_connections)
        server, certificates = settings.server, None
        if server.tls_cert is not None:
            from .tls import Certificates  # ssl takes a while to import, and most servers are in cleartext

            certificates = Certificates.of(settings)
        where = server.listen_uds or place(server.address, server.port)
        with _explained(f"Could not bind TCP Listener on {where}"):
            http = _bind_unix(server.listen_uds) if server.listen_uds else _bind(server.address, server.port)
        try:
            if server.grpc_port:
                where = place(server.address, server.grpc_port)
                with _explained(f"Could not bind gRPC on {where}", hint="choose another port with --grpc-port"):
                    _bind(server.address, server.grpc_port).close()  # grpcio binds it again, and says less
            return Sockets(http, _bind_metrics(settings, http), server.listen_uds, certificates, connections)
        except BaseException:
            http.close()
            raise

    @property
    def place(self) -> str:
        """Where HTTP is served, for people."""
        return str(self.path or place(*self.http.getsockname()[:2]))

    def close(self) -> None:
        """Gives back all addresses; may be called again."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.http.close()
        if self.metrics is not None:
            self.metrics.close()


def explained(error: OSError) -> OSError:
    """The error as text-embeddings-inference words it."""
    return OSError(f"{error.strerror} (os error {error.errno})")


@contextmanager
def _explained(problem: str, hint: str | None = None) -> Iterator[None]:
    """Raises StartError with this problem in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise StartError(problem, hint=hint) from explained(error)


def _bind_metrics(settings: Settings, http: socket.socket) -> socket.socket | None:
    """None where the default port is not free."""
    port = settings.telemetry.prometheus_port
    wanted = METRICS_PORT if port is None else port
    try:
        if wanted and wanted in (settings.server.grpc_port, http.getsockname()[1]):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))  # two that do not listen yet can share one
        return _bind(settings.server.address, wanted)
    except OSError as error:
        if port is None:
            warn_of_metrics_port(error)
            return None
        cause = OSError(f"failed to create HTTP listener: {explained(error)}")
        hint = "choose another port with --prometheus-port; 0 takes any free one"
        raise StartError("failed to build prometheus recorder", hint=hint) from cause


def warn_of_metrics_port(error: BaseException) -> None:
    """Where the default port for metrics can't be had: text-embeddings-inference would start, too."""
    logger.warning(
        "metrics are served at /metrics of the main port only: port %d is not free: %s (--prometheus-port 0 takes any)",
        METRICS_PORT,
        error,
    )


def _bind(address: str, port: int) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 too, whatever the system's default
        bound.bind(place)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_unix(path: Path) -> socket.socket:
    """Replaces a socket that no process listens on any more."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and bound.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    return bound
