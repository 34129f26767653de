"""Gathers errors instead of stopping at the first, and what the log would warn of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import StartError

PACKAGE = __name__.split(".")[0]


class Problems:
    """What was found to be wrong."""

    def __init__(self) -> None:
        self.found: list[StartError] = []
        """The errors of all steps, in order."""
        self.warnings: list[str] = []
        """Lines of the log of that level and above, each once."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Keeps a StartError, and lets what follows go on."""
        try:
            yield
        except StartError as problem:
            self.found.append(problem)

    @contextmanager
    def watch_log(self) -> Iterator[None]:
        """Keeps what this package logs as a warning or worse."""
        handler = _Keeper(self.warnings)
        logger = logging.getLogger(PACKAGE)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Keeper(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in self._lines:
            self._lines.append(line)
