"""The application. A request passes, in this order: CORS, path, key, method, body, handler."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..errors import RequestError
from ..inference.model import Model
from ..settings import Settings
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import PARENT, parse_traceparent
from .api.handlers import Handlers
from .api.openapi import openapi_route
from .api.routes import Route, routes
from .auth import Keys
from .http.decoding import BodyDecoder
from .http.errors import METHOD_NOT_ALLOWED, NOT_FOUND, Failure, RejectedError
from .http.memory_budget import MemoryBudget, Share
from .http.middleware import Cors, read_body, require_json, require_key
from .http.request import Request
from .http.response import Reply

logger = logging.getLogger(__name__)

PROBES = ("/health", "/ping", "/metrics")
"""Paths that are answered though there are too many connections."""
TEXT = (b"content-type", b"text/plain; charset=utf-8")


class App:
    """Serves `models`; the first of them answers requests that name none."""

    def __init__(self, models: Mapping[str, Model], settings: Settings) -> None:
        model = next(iter(models.values()))
        handlers, keys = Handlers(model, settings), Keys(settings.server.api_key)
        found = routes(model.info, settings.server.task)
        table = (*found, openapi_route(found))
        budget = MemoryBudget(settings.limits.max_queued_bytes)
        self._endpoints = {
            route.path: Endpoint(route, handlers, keys, budget, settings.limits.payload_limit) for route in table
        }
        self._cors = Cors(settings.server.cors_allow_origin, {route.path: route.allow for route in table})

    async def __call__(self, request: Request) -> Reply:
        if request.method == "OPTIONS":
            reply = self._cors.preflight(request)
        elif (endpoint := self._endpoints.get(request.path)) is not None:
            reply = await endpoint(request)
        else:
            error = RejectedError(NOT_FOUND, f"there is no route {request.path}")
            reply = self.refuse(request.path, Failure.of(error))
        return reply._replace(headers=reply.headers + self._cors.headers(request))

    def refuse(self, path: str, failure: Failure) -> Reply:
        """A failure in the shape that the clients of a path know."""
        endpoint = self._endpoints.get(path)
        openai = path.startswith("/v1/") if endpoint is None else endpoint.route.openai
        return failure.openai() if openai else failure.plain()

    def is_probe(self, request: Request) -> bool:
        """Whether the request asks how the server is."""
        return request.path in PROBES and request.method in ("GET", "HEAD")


class Endpoint:
    """Everything under one path."""

    def __init__(self, route: Route, handlers: Handlers, keys: Keys, budget: MemoryBudget, payload_limit: int) -> None:
        self.route = route
        self._handlers = handlers
        self._keys = keys
        self._budget = budget
        self._payload_limit = payload_limit
        self._traces = handlers.model.tracer is not None
        self._decoder = BodyDecoder(route.post.body) if route.post else None

    async def __call__(self, request: Request) -> Reply:
        try:
            return await self._answer(request)
        except Exception as error:  # whatever happens, the client gets an answer
            return self._refuse(error)

    async def _answer(self, request: Request) -> Reply:
        route, method = self.route, request.method
        if not route.public or (method == "POST" and route.post is not None):
            require_key(self._keys, request)
        if route.get is not None and method in ("GET", "HEAD"):
            return await route.get.handle(self._handlers)
        if route.post is None or self._decoder is None or method != "POST":
            message = f"{method} is not among the methods of {route.path}: {route.allow.decode()}"
            raise RejectedError(METHOD_NOT_ALLOWED, message, ((b"allow", route.allow),))
        if self._traces:
            PARENT.set(parse_traceparent(request.header(b"traceparent").decode("latin-1")))
        require_json(request)
        with Share(self._budget) as share:
            body = await read_body(request, self._payload_limit, share)
            most = route.post.most_items(self._handlers.model.limits)
            return await route.post.handle(self._handlers, self._decoder.decode(body, most_items=most))

    def _refuse(self, error: Exception) -> Reply:
        if not isinstance(error, RequestError | RejectedError):
            logger.error("%s failed: %s", self.route.path, error, exc_info=error)
        failure = Failure.of(error)
        return failure.openai() if self.route.openai else failure.plain()


class MetricsApp:
    """The metrics on a port of their own, for scrapers that may not reach the other one: any path gives them,
    `/health` an OK."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, request: Request) -> Reply:
        return Reply(200, (TEXT,), [b"OK" if request.path == "/health" else self._metrics.render()])

    def refuse(self, path: str, failure: Failure) -> Reply:
        """In the shape of the other port."""
        return failure.plain()

    def is_probe(self, request: Request) -> bool:
        """All requests are."""
        return True
