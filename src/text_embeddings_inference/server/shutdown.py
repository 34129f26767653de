"""How a server ends: the first signal lets what was accepted be finished, for a while; the second ends it at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable
from typing import Protocol, Self

from ..inference import Model

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_ANSWERS_S = 1.0
"""So long the answers that tell of the end may take to reach their clients."""


class Cuttable(Protocol):
    """A server whose connections can be ended, whatever is going on in them."""

    async def cut(self) -> None: ...


class Ending:
    """Waits for a signal, and for no longer than it should until all is done and its `with` ends.

    Used in the event loop of the main thread.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        """clean_up: what may not be left undone even if the process ends at once."""
        self._clean_up = clean_up
        self._asked = asyncio.Event()
        self._cutting: asyncio.Task[None] | None = None
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._cutting is not None:
            self._cutting.cancel()

    async def wait(self) -> None:
        await self._asked.wait()

    def cut_short(self, models: Iterable[Model], servers: Iterable[Cuttable], *, after: float) -> None:
        """After so many seconds answers all that is left with an error, and soon after that ends the connections."""

        async def cut() -> None:
            await asyncio.sleep(after)
            logger.warning("what was accepted is not finished after %d s, it is answered with an error", after)
            for model in models:
                model.abort()
            await asyncio.sleep(LAST_ANSWERS_S)
            await asyncio.gather(*(server.cut() for server in servers))

        self._cutting = asyncio.create_task(cut())

    def _on_signal(self, number: int) -> None:
        if self._asked.is_set():
            logger.warning("second signal received, ending at once")
            self._clean_up()
            os._exit(128 + number)  # what a shell says of a process that the signal ended
        logger.info("signal received, starting graceful shutdown")
        self._asked.set()
