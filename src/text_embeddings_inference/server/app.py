"""The ASGI application. A request passes, in this order: CORS, path, key, method, body, handler."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..errors import RequestError
from ..inference.model import Model
from ..settings import Settings
from ..telemetry.tracing import PARENT, parse_traceparent
from .api.handlers import Handlers
from .api.openapi import openapi_route
from .api.routes import Route, routes
from .auth import Keys
from .http.asgi import ASGIApp, Receive, Scope, Send
from .http.decoding import BodyDecoder
from .http.errors import METHOD_NOT_ALLOWED, NOT_FOUND, ClientGoneError, Failure, RejectedError
from .http.memory_budget import Room, Share
from .http.middleware import Cors, header, read_body, require_json, require_key, while_connected
from .http.response import Reply

logger = logging.getLogger(__name__)


def create_app(models: Mapping[str, Model], settings: Settings) -> ASGIApp:
    """The application that serves `models`; the first of them answers requests that name none."""
    model = next(iter(models.values()))
    handlers, keys = Handlers(model, settings), Keys(settings.server.api_key)
    found = routes(model.info, settings.server.task)
    table = (*found, openapi_route(found))
    room = Room(settings.limits.max_queued_bytes)
    endpoints = {route.path: Endpoint(route, handlers, keys, room, settings.limits.payload_limit) for route in table}
    allowed = {route.path: route.allow for route in table}
    return Cors(Router(endpoints), settings.server.cors_allow_origin, allowed)


class Router:
    """Finds the endpoint of a path."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        failure = Failure.of(RejectedError(NOT_FOUND, f"there is no route {scope['path']}"))
        reply = failure.openai() if scope["path"].startswith("/v1/") else failure.plain()
        await reply.send(send, with_body=scope["method"] != "HEAD")


class Endpoint:
    """Everything under one path."""

    def __init__(self, route: Route, handlers: Handlers, keys: Keys, room: Room, payload_limit: int) -> None:
        self._route = route
        self._handlers = handlers
        self._keys = keys
        self._room = room
        self._payload_limit = payload_limit
        self._traces = handlers.model.tracer is not None
        self._decoder = BodyDecoder(route.post.body) if route.post else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # whatever happens, the client gets an answer
            reply = self._refuse(error)
        await reply.send(send, with_body=scope["method"] != "HEAD")

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        route, method = self._route, scope["method"]
        if not route.public or (method == "POST" and route.post is not None):
            require_key(self._keys, scope)
        if route.get is not None and method in ("GET", "HEAD"):
            return await route.get.handle(self._handlers)
        if route.post is None or self._decoder is None or method != "POST":
            message = f"{method} is not among the methods of {route.path}: {route.allow.decode()}"
            raise RejectedError(METHOD_NOT_ALLOWED, message, ((b"allow", route.allow),))
        if self._traces:
            PARENT.set(parse_traceparent((header(scope, b"traceparent") or b"").decode("latin-1")))
        require_json(scope)
        with Share(self._room) as share:
            body = await read_body(scope, receive, self._payload_limit, share)
            return await while_connected(route.post.handle(self._handlers, self._decoder.decode(body)), receive)

    def _refuse(self, error: Exception) -> Reply:
        if not isinstance(error, RequestError | RejectedError):
            logger.error("%s failed: %s", self._route.path, error, exc_info=error)
        failure = Failure.of(error)
        return failure.openai() if self._route.openai else failure.plain()
