"""The application. A request passes, in this order: CORS, path, key, method, body, operation."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping

from ..errors import RequestError
from ..inference.model import Model
from ..settings import Settings
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import PARENT, parse_traceparent
from .accounting import Served
from .api.openapi import openapi_route
from .api.operation import Dialect, Post
from .api.routes import DIALECTS, Route, routes
from .api.tei import TEI
from .auth import Keys
from .http.decoding import BodyDecoder
from .http.errors import METHOD_NOT_ALLOWED, NOT_FOUND, Failure, RejectedError
from .http.memory_budget import LARGE, MemoryBudget, Share
from .http.middleware import Cors, read_body, require_json, require_key
from .http.request import Request
from .http.response import TEXT, Reply

logger = logging.getLogger(__name__)

PROBES = ("/health", "/ping", "/metrics")
"""Paths that are answered though there are too many connections."""
WARN_EVERY_S = 60.0


class Catalogue:
    """The served models by name; the first of them answers requests that name none, or none of them."""

    def __init__(self, models: Mapping[str, Served], clock: Callable[[], float] = time.monotonic) -> None:
        self._models = models
        self._clock = clock
        self._unknown = 0
        """Requests that named another model since the last warning."""
        self._warned_at = -math.inf
        self.first = next(iter(models.values()))

    def find(self, name: str | None) -> Served:
        """What answers a request that names a model."""
        if name is None or name == self.first.model.info.served_name:
            return self.first
        if (found := self._models.get(name)) is not None:
            return found
        self._unknown += 1
        if self._clock() - self._warned_at >= WARN_EVERY_S:
            answers = self.first.model.info.served_name
            logger.warning("Requests name another model than `%s`, which answers them: %d", answers, self._unknown)
            self._unknown, self._warned_at = 0, self._clock()
        return self.first


class App:
    """Serves `models`."""

    def __init__(self, models: Mapping[str, Model], settings: Settings, budget: MemoryBudget) -> None:
        """budget: of the bodies of all ports."""
        catalogue = Catalogue({name: Served.of(model, settings) for name, model in models.items()})
        gate = Gate(settings, budget)
        found = routes(catalogue.first.model.info, settings.server.task)
        table = (*found, openapi_route(found))
        self._endpoints = {route.path: Endpoint(route, catalogue, gate) for route in table}
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
        """A failure in the dialect of a path."""
        return self._dialect(path).error(failure)

    def is_probe(self, request: Request) -> bool:
        """Whether the request asks how the server is."""
        return request.path in PROBES and request.method in ("GET", "HEAD")

    def _dialect(self, path: str) -> Dialect:
        if (endpoint := self._endpoints.get(path)) is not None:
            return endpoint.route.dialect
        return next((dialect for start, dialect in DIALECTS.items() if path.startswith(start)), TEI)


class Gate:
    """What requests pass before they are answered, whatever they ask for."""

    def __init__(self, settings: Settings, budget: MemoryBudget) -> None:
        self.keys = Keys(settings.server.api_key)
        self.budget = budget
        self.large = asyncio.Lock()
        """Held while an answer of LARGE bytes or more is rendered: several half-rendered ones would fill the memory
        before any of them counts as unsent. The lock is fair."""
        self.payload_limit = settings.limits.payload_limit


class Endpoint:
    """Everything under one path."""

    def __init__(self, route: Route, catalogue: Catalogue, gate: Gate) -> None:
        self.route = route
        self._catalogue = catalogue
        self._gate = gate
        self._traces = catalogue.first.model.tracer is not None
        self._decoder = BodyDecoder(route.post.body) if route.post else None

    async def __call__(self, request: Request) -> Reply:
        try:
            return await self._answer(request)
        except Exception as error:  # whatever happens, the client gets an answer
            if not isinstance(error, RequestError | RejectedError):
                logger.error("%s failed: %s", self.route.path, error, exc_info=error)
            return self.route.dialect.error(Failure.of(error))

    async def _answer(self, request: Request) -> Reply:
        route, method = self.route, request.method
        if not route.public or (method == "POST" and route.post is not None):
            require_key(self._gate.keys, request)
        if route.get is not None and method in ("GET", "HEAD"):
            return await route.get.handle(self._catalogue.first)
        if route.post is None or method != "POST":
            message = f"{method} is not among the methods of {route.path}: {route.allow.decode()}"
            raise RejectedError(METHOD_NOT_ALLOWED, message, ((b"allow", route.allow),))
        if self._traces:
            PARENT.set(parse_traceparent(request.header(b"traceparent").decode("latin-1")))
        require_json(request)
        with Share(self._gate.budget) as share:
            return await self._post(route.post, await read_body(request, self._gate.payload_limit, share))

    async def _post(self, post: Post, content: bytes) -> Reply:
        assert self._decoder is not None
        first = self._catalogue.first
        with first.accounting.counting_failures(post.name):
            body = self._decoder.decode(content, most_items=post.most_items(first.model.limits))
        outcome = await post.run(self._catalogue.find(post.model(body)), body, self.route.dialect)
        if outcome.size < LARGE:
            return Reply.json(await outcome.render(), headers=outcome.headers)
        async with self._gate.large:  # the next one begins after this one's connection has counted it
            return Reply.json(await outcome.render(), headers=outcome.headers)


class MetricsApp:
    """The metrics on a port of their own, for scrapers that may not reach the other one: any path gives them,
    `/health` an OK."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, request: Request) -> Reply:
        return Reply(200, (TEXT,), [b"OK" if request.path == "/health" else self._metrics.render()])

    def refuse(self, path: str, failure: Failure) -> Reply:
        """In the shape of the other port."""
        return TEI.error(failure)

    def is_probe(self, request: Request) -> bool:
        """All requests are."""
        return True
