"""`/docs/`: Swagger UI, from files in the package. It asks no other host for anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING

from ..http.response import Reply

if TYPE_CHECKING:
    from .handlers import Handlers

CONTENT_TYPES = {"html": b"text/html", "js": b"text/javascript", "css": b"text/css"}

POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Swagger UI sets styles in its elements and draws its icons from data URLs."""


def page(name: str) -> Callable[[Handlers], Awaitable[Reply]]:
    """What answers the request for a file of `static/`; it is read when it is asked for."""

    async def handle(_: Handlers) -> Reply:
        headers = (
            (b"content-type", CONTENT_TYPES[name.rpartition(".")[2]]),
            (b"content-security-policy", POLICY),
        )
        return Reply(200, headers, [files(__package__).joinpath("static", name).read_bytes()])

    return handle


async def redirect(_: Handlers) -> Reply:
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
