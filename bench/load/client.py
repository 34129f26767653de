"""A small HTTP client on asyncio, which keeps its connections, tells times by status, and can misbehave."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

HEAD = b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """seconds: from sending the request to the end of the answer; ended: when that was, by `time.perf_counter`."""

    status: int
    body: bytes
    seconds: float
    ended: float


class Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def post(self, path: str, body: bytes) -> Answer:
        start = time.perf_counter()
        self._writer.write(HEAD % (path.encode(), len(body)) + body)
        status, answer = await self.receive()
        ended = time.perf_counter()
        return Answer(status, answer, ended - start, ended)

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Status and body of the next answer. Raises OSError or asyncio.IncompleteReadError where there is none."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line[:15].lower() == b"content-length:"), 0)
        return int(lines[0].split(b" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Without a word, whatever is on its way."""
        self._writer.transport.abort()


def percentile(values: list[float], share: float) -> float:
    """Of seconds, in milliseconds; 0 where there are none."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
