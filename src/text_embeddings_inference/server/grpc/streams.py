"""Many requests on one stream: they run side by side, and their answers go out in the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


async def in_order(
    requests: AsyncIterable[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    most: int,
) -> AsyncIterator[Response]:
    """The answers to the requests.

    most: requests that are read ahead of the answers. The first that fails ends the stream, after the answers before
    it; those after it are cancelled. So is everything, if the iterator is closed early.
    """
    running: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    tasks: set[asyncio.Task[Response]] = set()

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                task = asyncio.create_task(answer(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                running.put_nowait(task)
        finally:
            running.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await running.get()) is not None:
            yield await task
            room.release()
        await reader  # raises what went wrong with reading
    finally:
        for left in (reader, *tasks):
            left.cancel()
        await asyncio.gather(reader, *tasks, return_exceptions=True)
