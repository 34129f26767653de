"""An answer on its way out: status, headers and a body in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from .asgi import Send

Header: TypeAlias = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")


class Reply(NamedTuple):
    """body: pieces that are sent one after another, so that a long answer needs no copy in one piece."""

    status: int
    headers: tuple[Header, ...]
    body: Sequence[bytes]

    @staticmethod
    def json(body: Sequence[bytes], *, status: int = 200, headers: tuple[Header, ...] = ()) -> Reply:
        return Reply(status, (JSON, *headers), body)

    async def send(self, send: Send, *, with_body: bool = True) -> None:
        """with_body: False for HEAD, which gets the same headers."""
        length = b"%d" % sum(map(len, self.body))
        headers = [*self.headers, (b"content-length", length)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        pieces = self.body if with_body else ()
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)  # other requests' turn
        await send({"type": "http.response.body", "body": pieces[-1] if pieces else b""})
