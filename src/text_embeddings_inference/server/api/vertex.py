"""`/vertex`: several bodies of other routes in one request, as Vertex AI sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Raw, Struct

from ...errors import BatchSizeError
from ...inference.tasks import default_task
from ..http.decoding import BAD_SHAPE, BodyDecoder
from ..http.errors import Reason, RejectedError
from ..http.response import Reply
from .handlers import Handlers
from .requests import EmbedAllRequest, EmbedRequest, EmbedSparseRequest, PredictRequest, RerankRequest

S = TypeVar("S", bound=Struct)

WRONG_INSTANCE = Reason(422, "Validation")


class VertexRequest(Struct):
    """Bodies of the model's default route, or of `/rerank`, answered together."""

    instances: list[Raw]


class VertexResponse(Struct):
    """The answer to each instance."""

    predictions: list[Raw]


class _Way(NamedTuple, Generic[S]):
    """A type of instances and what answers them."""

    decoder: BodyDecoder[S]
    handle: Callable[[Handlers, S], Awaitable[Reply]]


_RERANK = _Way(BodyDecoder(RerankRequest), Handlers.rerank)
_PREDICT = _Way(BodyDecoder(PredictRequest), Handlers.predict)
_EMBED_SPARSE = _Way(BodyDecoder(EmbedSparseRequest), Handlers.embed_sparse)
_EMBED_ALL = _Way(BodyDecoder(EmbedAllRequest), Handlers.embed_all)
_EMBED = _Way(BodyDecoder(EmbedRequest), Handlers.embed)
_WAYS: dict[str, _Way[Any]] = {
    "embed": _EMBED,
    "embed_all": _EMBED_ALL,
    "embed_sparse": _EMBED_SPARSE,
    "predict": _PREDICT,
    "rerank": _PREDICT,
}
"""Task that a model is made for -> the way of instances that are no `/rerank` bodies."""


async def vertex(handlers: Handlers, request: VertexRequest) -> Reply:
    """Gives the answers to several bodies, as Vertex AI asks for them.

    Nothing runs unless every instance can be read. The first instance's error is the request's. Each instance has at
    least one input, so more of them than there are permits can't be answered.
    """
    if len(request.instances) > (most := handlers.model.limits.max_concurrent_requests):
        raise BatchSizeError(len(request.instances), most)
    calls = [_read(handlers, bytes(raw), f"instances[{i}]") for i, raw in enumerate(request.instances)]
    answers = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    body: list[bytes] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        body += [b"," if body else b'{"predictions":[', *answer.body]
    return Reply.json([*body, b"]}"] if body else [b'{"predictions":[]}'])


def _read(handlers: Handlers, instance: bytes, place: str) -> Callable[[], Awaitable[Reply]]:
    """What answers the instance: reranking if it looks like it, whatever the model is, else what the model does."""
    try:
        return _call(_RERANK, handlers, instance, place)
    except RejectedError:
        pass
    try:
        return _call(_WAYS[default_task(handlers.model.info)], handlers, instance, place)
    except RejectedError as error:
        raise RejectedError(WRONG_INSTANCE, str(error).removeprefix(BAD_SHAPE)) from None


def _call(way: _Way[Any], handlers: Handlers, instance: bytes, place: str) -> Callable[[], Awaitable[Reply]]:
    request = way.decoder.decode(instance, f"{place}.")
    return lambda: way.handle(handlers, request)
