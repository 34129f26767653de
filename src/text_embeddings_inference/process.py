"""What the command does to its process before all else: signals and standard streams. Imports next to nothing."""

from __future__ import annotations

import os
import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FIRST = 1
"""The process id of a container's first process, whose signals the kernel drops unless it has a handler for them."""


def prepare() -> None:
    """Until a server takes over the signals, those that end it end the process at once, and the others do nothing.

    Called in the main thread; may be called again.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in ENDING:
        signal.signal(number, _end if os.getpid() == FIRST else signal.SIG_DFL)
    _open_standard_streams()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy starts its threads when it is imported: we need none


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)  # what a shell says of a process that the signal ended


def _open_standard_streams() -> None:
    """What the process was started without leads nowhere: else sockets got these numbers, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
