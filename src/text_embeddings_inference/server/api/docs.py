"""`/docs/`: Swagger UI, from files in the package. It asks no other host for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files

from ..accounting import Served
from ..http.response import Reply

CONTENT_TYPES = {"html": b"text/html", "js": b"text/javascript", "css": b"text/css"}

POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Swagger UI sets styles in its elements and draws its icons from data URLs."""


def page(name: str) -> Callable[[Served], Awaitable[Reply]]:
    """What answers the request for a file of `static/`; it is read when it is asked for, by another thread."""
    file = files(__package__).joinpath("static", name)

    async def handle(_: Served) -> Reply:
        headers = (
            (b"content-type", CONTENT_TYPES[name.rpartition(".")[2]]),
            (b"content-security-policy", POLICY),
        )
        return Reply(200, headers, [await asyncio.to_thread(file.read_bytes)])

    return handle


async def redirect(_: Served) -> Reply:
    return Reply(303, ((b"location", b"/docs/"),), [])


PAGES = {
    "/docs": redirect,
    "/docs/": page("index.html"),
    "/docs/index.html": page("index.html"),
    "/docs/docs.js": page("docs.js"),
    "/docs/swagger-ui.css": page("swagger-ui.css"),
    "/docs/swagger-ui-bundle.js": page("swagger-ui-bundle.js"),
}
"""Path -> what answers it."""
