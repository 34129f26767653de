"""Many requests on one stream: they run side by side, and their answers go out in the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")

EXPECTED_ANSWER = 1 << 16
"""Bytes that an answer is taken for until there is a first one."""


class Ahead:
    """How far a stream is read ahead of the answers that its client has taken: in items, and in bytes.

    The bytes are those of requests that are not answered, of answers that are not taken, and of answers to come, each
    taken for an average one. One item at a time is always read.
    """

    def __init__(self, most: int, most_bytes: Callable[[], float], size: Callable[[Any], int]) -> None:
        """most: items; size: bytes of a request, or of an answer."""
        self._most = most
        self._most_bytes = most_bytes
        self._size = size
        self._running = self._answered = 0
        self._items = self._bytes = 0
        """Read and not taken."""
        self._answer_bytes = 0
        """Of all answers so far."""
        self._progress = asyncio.Event()

    async def wait(self) -> None:
        """Waits until another item may be read."""
        while self._items and not self._fits():
            self._progress.clear()
            await self._progress.wait()

    def read(self, request: object) -> None:
        self._items += 1
        self._running += 1
        self._bytes += self._size(request)

    def answered(self, request: object, response: object) -> None:
        size = self._size(response)
        self._running -= 1
        self._answered += 1
        self._answer_bytes += size
        self._bytes += size - self._size(request)
        self._progress.set()

    def taken(self, response: object) -> None:
        self._items -= 1
        self._bytes -= self._size(response)
        self._progress.set()

    def _fits(self) -> bool:
        expected = self._answer_bytes / self._answered if self._answered else EXPECTED_ANSWER
        return self._items < self._most and self._bytes + self._running * expected < self._most_bytes()


async def in_order(
    requests: AsyncIterable[Request], answer: Callable[[Request], Coroutine[Any, Any, Response]], ahead: Ahead
) -> AsyncIterator[Response]:
    """The answers to the requests; an answer is taken when the next one is asked for.

    The first that fails ends the stream, after the answers before it; those after it are cancelled. So is everything,
    if the iterator is closed early.
    """
    running: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    tasks: set[asyncio.Task[Response]] = set()

    async def answer_counted(request: Request) -> Response:
        response = await answer(request)
        ahead.answered(request, response)
        return response

    async def read() -> None:
        try:
            async for request in requests:
                ahead.read(request)
                task = asyncio.create_task(answer_counted(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                running.put_nowait(task)
                del request, task  # an answer that was taken is not kept while nothing comes
                await ahead.wait()
        finally:
            running.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await running.get()) is not None:
            response = await task
            yield response
            ahead.taken(response)
        await reader  # raises what went wrong with reading
    finally:
        for left in (reader, *tasks):
            left.cancel()
        await asyncio.gather(reader, *tasks, return_exceptions=True)
