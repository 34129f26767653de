"""The signals of a server: one lets what was accepted be finished, for a while; a second ends it at once; SIGHUP reads
certificates again; SIGUSR1 and SIGUSR2 do nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable
from typing import Protocol, Self

from ..inference.model import Model

logger = logging.getLogger(__name__)

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
LAST_ANSWERS_S = 1.0
"""Seconds that the last answers may take to reach their clients."""


class Abortable(Protocol):
    """A server whose connections can be ended, whatever is going on in them."""

    def stop_accepting(self) -> None: ...

    async def abort(self) -> None: ...


class Shutdown:
    """Waits for a signal, and for no longer than it should until all is done and its `with` ends.

    Used in the event loop of the main thread.
    """

    def __init__(self, clean_up: Callable[[], None], reload: Callable[[], None] | None) -> None:
        """clean_up: what may not be left undone even if the process ends at once; reload: reads certificates again."""
        self._clean_up = clean_up
        self._reload = reload
        self._asked = asyncio.Event()
        self._aborting: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self._on_end, number)
        for number in IGNORED:
            loop.add_signal_handler(number, logger.info, "%s received, which means nothing here", number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._aborting is not None:
            self._aborting.cancel()

    async def wait(self) -> None:
        await self._asked.wait()

    def abort_after(self, seconds: float, models: Iterable[Model], servers: Iterable[Abortable]) -> None:
        """After so many seconds answers all that is left with an error, and soon after that ends the connections."""

        async def abort() -> None:
            await asyncio.sleep(seconds)
            logger.warning("what was accepted is not finished after %d s, it is answered with an error", seconds)
            for model in models:
                model.abort()
            await asyncio.sleep(LAST_ANSWERS_S)
            await asyncio.gather(*(server.abort() for server in servers))

        self._aborting = asyncio.create_task(abort())

    def _on_hang_up(self) -> None:
        if self._reload is None:
            logger.info("SIGHUP received: there are no certificates to read again")
        else:
            self._reload()

    def _on_end(self, number: int) -> None:
        if self._asked.is_set():
            logger.warning("second signal received, ending at once")
            self._clean_up()
            for handler in logging.getLogger().handlers:
                handler.flush()
            os._exit(128 + number)  # what a shell says of a process that the signal ended
        logger.info("signal received, starting graceful shutdown")
        self._asked.set()
