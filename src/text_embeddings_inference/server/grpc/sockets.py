"""What grpcio does not do with connections."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import closing
from urllib.parse import unquote

OPEN_FILES = "/dev/fd"
"""A folder with the number of each open file of this process, on Linux as on macOS."""


def disconnect(peer: str, port: int) -> None:
    """Ends the connection to our `port` from `peer`, as grpcio names it: `ipv4:127.0.0.1:80`, `ipv6:%5B::1%5D:80`."""
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
            if _name(found, port) == unquote(peer).partition(":")[2]:
                found.shutdown(socket.SHUT_RDWR)


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
