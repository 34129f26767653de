"""How many sockets of clients may be open, over all ports, and the descriptors that are kept for probes."""

from __future__ import annotations

import logging
import os
import resource

from ..errors import StartError

logger = logging.getLogger(__name__)

PROBES = 32
"""Connections beyond the limit that a port still takes, for `/health` and `/metrics`; one more ends the oldest
that has sent no request."""
METRICS_CONNECTIONS = 32
"""Connections of the metrics port."""
HELD_FILES = 16
"""Descriptors that are held, to be given to connections when there are no others."""
SPARE_FILES = 256
"""Open files that are no counted connections: the probes of both ports, the metrics port's, held descriptors, sockets
that listen, libraries, weights."""
FEWEST_CONNECTIONS = 16


class Connections:
    """Counts sockets from when they are accepted; one object for all ports that share a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0

    def enter(self) -> bool:
        """Counts one more; False, and nothing is counted, where there are too many."""
        if self.open >= self.limit:
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        """One that was counted has ended."""
        self.open -= 1


class HeldDescriptors:
    """Descriptors for the time when other sockets (gRPC's, files) have used up all the process may have."""

    def __init__(self, count: int = HELD_FILES) -> None:
        self._count = count
        self._held: list[int] = []
        self.refill()

    @property
    def all_there(self) -> bool:
        return len(self._held) == self._count

    def release(self) -> bool:
        """Lets go of one, so that a socket can be accepted; False: there is none."""
        if self._held:
            os.close(self._held.pop())
            return True
        return False

    def refill(self) -> None:
        """Takes back what was let go, as far as that is possible."""
        try:
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return  # still none: at the next call

    def close(self) -> None:
        while self.release():
            pass
        self._count = 0


def raise_file_limit(connections: int) -> int:
    """Lets the process open files enough for so many connections, as far as it may; for how many it may.

    Raises StartError where that is too few to serve.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    fewest = SPARE_FILES + min(connections, FEWEST_CONNECTIONS)
    if allowed < fewest:
        hint = f"raise the limit: `ulimit -n {wanted}`, `docker run --ulimit nofile={wanted}`, systemd's LimitNOFILE"
        raise StartError(f"the process may open only {hard} files, and needs at least {fewest}", hint=hint)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("at most %d connections: the process may open %d files (ulimit -n)", allowed - SPARE_FILES, hard)
    return allowed - SPARE_FILES
