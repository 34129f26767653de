"""`/vertex`: several bodies of other operations in one request, as Vertex AI sends them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Raw, Struct

from ...errors import BatchSizeError, RequestError
from ...inference.tasks import default_task
from ...settings import Limits
from ..accounting import Served
from ..http.decoding import BAD_SHAPE, BodyDecoder
from ..http.errors import Reason, RejectedError
from .operation import Dialect, Outcome, Post
from .tei import EMBED, EMBED_ALL, EMBED_SPARSE, PREDICT, RERANK

WRONG_INSTANCE = Reason(422, "Validation")


class VertexRequest(Struct):
    """Bodies of the model's default route, or of `/rerank`, answered together."""

    instances: list[Raw]


class VertexResponse(Struct):
    """The answer to each instance."""

    predictions: list[Raw]


OF_MODELS: Mapping[str, Post] = {
    "embed": EMBED,
    "embed_all": EMBED_ALL,
    "embed_sparse": EMBED_SPARSE,
    "predict": PREDICT,
    "rerank": PREDICT,
}
"""Task that a model is made for -> the operation of instances that are no bodies of `/rerank`."""


class Vertex:
    """The operation whose body holds those of others."""

    name = "vertex"
    summary = "Gives the answers to several bodies, as Vertex AI asks for them."
    body = VertexRequest
    result = VertexResponse

    def __init__(self) -> None:
        self._decoders = {post.name: BodyDecoder(post.body) for post in (RERANK, *OF_MODELS.values())}

    def most_items(self, limits: Limits) -> int:
        """Each instance has at least one input, so more of them than there are permits can't be answered."""
        return limits.max_concurrent_requests

    def model(self, body: VertexRequest) -> str | None:
        """None: an instance's name is not looked at."""
        return None

    async def run(self, served: Served, body: VertexRequest, dialect: Dialect) -> Outcome:
        """Nothing runs unless every instance can be read. The first instance's error is the request's."""
        count, most = len(body.instances), self.most_items(served.model.limits)
        with served.accounting.counting_failures(self.name):
            if count > most:
                raise BatchSizeError(count, most)
        calls = [self._read(served, dialect, bytes(raw), place) for place, raw in enumerate(body.instances)]
        outcomes: deque[Outcome] = deque()
        for place, found in enumerate(await asyncio.gather(*(call() for call in calls), return_exceptions=True)):
            if isinstance(found, RequestError) and found.place is not None:
                found.place = f"instances[{place}].{found.place}"
            if isinstance(found, BaseException):
                raise found
            outcomes.append(found)
        return Outcome(sum(outcome.size for outcome in outcomes), partial(self._render, outcomes))

    async def _render(self, outcomes: deque[Outcome]) -> list[bytes]:
        pieces: list[bytes] = []
        while outcomes:
            pieces += [b"," if pieces else b'{"predictions":[', *await outcomes.popleft().render()]
            await asyncio.sleep(0)  # other requests' turn
        return [*pieces, b"]}"] if pieces else [b'{"predictions":[]}']

    def _read(
        self, served: Served, dialect: Dialect, instance: bytes, index: int
    ) -> Callable[[], Coroutine[Any, Any, Outcome]]:
        """What answers the instance: reranking if it looks like it, whatever the model is, else what the model does."""
        posts: Sequence[Post] = (RERANK, OF_MODELS[default_task(served.model.info)])
        for post in posts:
            try:
                body = self._decoders[post.name].decode(instance, f"instances[{index}].")
            except RejectedError as error:
                problem = error
            else:
                return lambda post=post, body=body: post.run(served, body, dialect)  # type: ignore[misc]
        raise RejectedError(WRONG_INSTANCE, str(problem).removeprefix(BAD_SHAPE)) from None


VERTEX = Vertex()
