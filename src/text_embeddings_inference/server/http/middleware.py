"""What happens to every request around its handler, in pure ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

from ..auth import Keys
from .asgi import ASGIApp, Message, Receive, Scope, Send
from .errors import NOT_JSON, TOO_LARGE, UNAUTHORIZED, ClientGoneError, RejectedError
from .memory_budget import Share
from .response import Header, Reply

T = TypeVar("T")

UNWATCHED_S = 0.005
"""So soon after a request has come in nobody looks whether its client left: that costs 20 µs, and most are answered."""
ORIGIN = b"access-control-allow-origin"


class Cors:
    """Lets browsers call from other origins, and answers every OPTIONS request.

    origins: that may call; none, or `*` among them: all may. allowed: path -> value of its header `allow`.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str], allowed: Mapping[str, bytes]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}
        self._any = not self._origins or b"*" in self._origins
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra = self._headers(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].extend(extra)
            await send(message)

        if scope["method"] == "OPTIONS":
            await self._preflight(scope["path"]).send(send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _headers(self, scope: Scope) -> list[Header]:
        vary = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
        if self._any:
            return [vary, (ORIGIN, b"*")]
        origin = header(scope, b"origin")
        return [vary, (ORIGIN, origin)] if origin in self._origins and origin is not None else [vary]

    def _preflight(self, path: str) -> Reply:
        headers: list[Header] = [
            (b"access-control-allow-methods", b"GET,POST"),
            (b"access-control-allow-headers", b"content-type,authorization"),
        ]
        if path in self._allowed:
            headers.append((b"allow", self._allowed[path]))
        return Reply(200, tuple(headers), [])


def require_key(keys: Keys, scope: Scope) -> None:
    """Raises RejectedError unless the request has a key."""
    if keys.required and not keys.accept(header(scope, b"authorization") or b""):
        raise RejectedError(UNAUTHORIZED, "no valid API key: send `Authorization: Bearer <key>`")


def require_json(scope: Scope) -> None:
    """Raises RejectedError unless the body is said to be JSON."""
    media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json" and not (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    ):
        raise RejectedError(NOT_JSON, "Expected request with `Content-Type: application/json`")


async def read_body(scope: Scope, receive: Receive, limit: int, share: Share) -> bytes:
    """The body.

    Raises RejectedError once it is longer than `limit` bytes, OverloadedError if there is no room for it, and
    ClientGoneError if it breaks off.
    """
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body = message.get("body", b"")
        size += len(body)
        if size > limit:
            raise _too_large(limit)
        share.take(len(body))
        if not message.get("more_body"):
            return b"".join([*chunks, body]) if chunks else body
        chunks.append(body)


def _too_large(limit: int) -> RejectedError:
    return RejectedError(TOO_LARGE, f"Failed to buffer the request body: length limit exceeded ({limit} bytes)")


async def while_connected(work: Awaitable[T], receive: Receive) -> T:
    """Awaits `work`, and cancels it if the client leaves: then raises ClientGoneError. The body must have been read."""
    task = asyncio.current_task()
    assert task is not None
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def start() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(UNWATCHED_S, start)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this name; name: in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None
