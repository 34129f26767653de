"""What grpcio does not do with connections."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from urllib.parse import unquote

OPEN_FILES = "/dev/fd"
"""A folder with the number of each open file of this process, on Linux as on macOS."""


def peers(port: int) -> set[str]:
    """The other ends of all connections to our `port`, as `disconnect` takes them."""
    return {peer for peer, _ in _connections(port)}


def disconnect(ended: Collection[str], port: int) -> None:
    """Ends the connections to our `port` from these addresses: `127.0.0.1:80`, `[::1]:80`."""
    for peer, connection in _connections(port):
        if peer in ended:
            with suppress(OSError):  # its client has left
                connection.shutdown(socket.SHUT_RDWR)


def address(peer: str) -> str:
    """What grpcio calls `ipv4:127.0.0.1:80` or `ipv6:%5B::1%5D:80`."""
    return unquote(peer).partition(":")[2]


def open_files() -> int:
    """Of this process; all its connections are among them."""
    return len(os.listdir(OPEN_FILES))


def _connections(port: int) -> Iterator[tuple[str, socket.socket]]:
    for number in os.listdir(OPEN_FILES):
        try:
            copy = os.dup(int(number))  # keeps the number from being given to another file meanwhile
        except OSError:
            continue  # it is closed already
        try:
            found = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)  # no socket
            continue
        with closing(found):
            if (peer := _name(found, port)) is not None:
                yield peer, found


def _name(connection: socket.socket, port: int) -> str | None:
    """Address and port at the other end, None where it is not a connection to our `port`."""
    try:
        here, there = connection.getsockname(), connection.getpeername()
    except OSError:
        return None  # it listens, or is closed
    if not isinstance(here, tuple) or here[1] != port:
        return None
    address = ipaddress.ip_address(there[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        return f"{address.ipv4_mapped}:{there[1]}" if address.ipv4_mapped else f"[{there[0]}]:{there[1]}"
    return f"{address}:{there[1]}"
