"""The OpenAPI document, made from the same types that decode requests and encode answers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from ...settings import CONTRACT_VERSION
from ..accounting import Served
from ..http.response import Reply
from .operation import Post
from .routes import HEALTH, Get, Route

PATH = "/api-doc/openapi.json"
TITLE = "Text Embeddings Inference"
REF = "#/components/schemas/{name}"

ALWAYS = {
    408: "The rest of the request did not come within `--client-timeout`.",
    431: "Request line and headers are longer than 64 KiB.",
    500: "An error of the server itself; its log says more.",
}
KEY = {401: "The key is missing or wrong."}
UNHEALTHY = {503: "The model does not answer."}
NOT_ANSWERED = {
    400: "The body is not JSON, or there is nothing in it to answer.",
    413: "The body is larger than `--payload-limit`.",
    415: "The content type is not JSON.",
    422: "A field has a wrong type, or breaks a limit.",
    424: "The model can't do this, or it failed.",
    429: "All permits are taken; the header `retry-after` says when to try again.",
}


def openapi_route(routes: Iterable[Route]) -> Route:
    """The route that serves the document of `routes`, which is made when it is first asked for."""

    @cache
    def body() -> bytes:
        return msgspec.json.encode(document(routes))

    async def handle(_: Served) -> Reply:
        return Reply.json([body()])

    return Route(PATH, get=Get(handle), public=True, documented=False)


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of those routes that are documented."""
    schemas: dict[str, Any] = {}
    paths = {route.path: _operations(route, schemas) for route in routes if route.documented}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "description": "Turns texts into embeddings, sparse embeddings, scores and classes.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "version": CONTRACT_VERSION,
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "tags": [{"name": TITLE}],
    }


def _operations(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    found = {}
    if route.get is not None:
        errors = ({} if route.public else KEY) | (UNHEALTHY if route.get is HEALTH else {})
        found["get"] = _operation(route, route.get, errors, schemas)
    if route.post is not None:
        found["post"] = _operation(route, route.post, KEY | NOT_ANSWERED, schemas) | {
            "requestBody": {"required": True, "content": _content(route.post.body, schemas)}
        }
    return found


def _operation(route: Route, way: Get | Post, errors: dict[int, str], schemas: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "The answer."}
    if way.result is not None:
        success["content"] = _content(way.result, schemas)
    error = _content(route.dialect.error_type, schemas)
    failures = {
        str(status): {"description": text, "content": error} for status, text in sorted((ALWAYS | errors).items())
    }
    operation = {
        "tags": [TITLE],
        "summary": way.summary,
        "operationId": way.name,
        "responses": {"200": success, **failures},
    }
    # A server without keys ignores the header: the second way in is none at all.
    return operation if route.public else operation | {"security": [{"key": []}, {}]}


def _content(body: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a type; the types within are added to `schemas`."""
    (schema,), parts = msgspec.json.schema_components([body], ref_template=REF)
    schemas |= parts
    return {"application/json": {"schema": schema}}
