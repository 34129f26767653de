"""Every route, as data: its path, what answers it, and the types that go in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from ...inference.tasks import default_task
from ...settings import Limits
from ...types import ModelInfo, Token
from ..http.response import Reply
from . import docs
from .handlers import Handlers
from .info import Info
from .openai import OpenAIRequest, OpenAIResponse
from .requests import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    EmbedSparseRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    TokenizeRequest,
)
from .responses import Number, PredictionResponse, RankResponse, SparseValue, Vector
from .vertex import VertexRequest, VertexResponse, vertex


@dataclass(frozen=True, slots=True)
class Get:
    """Answers GET and HEAD. answer: type of the JSON body, None where it is none."""

    handle: Callable[[Handlers], Awaitable[Reply]]
    answer: Any = None


@dataclass(frozen=True, slots=True)
class Post:
    """Answers POST with a JSON body. answer: type of the JSON body of the answer; most_items: of a list in the body."""

    body: type[Struct]
    handle: Callable[[Handlers, Any], Awaitable[Reply]]
    answer: Any
    most_items: Callable[[Limits], int] = lambda limits: max(1, limits.max_client_batch_size)


@dataclass(frozen=True, slots=True)
class Route:
    """public: GET needs no key (POST always does); openai: errors have the shape of the OpenAI routes;
    documented: is in the OpenAPI document."""

    path: str
    get: Get | None = None
    post: Post | None = None
    public: bool = False
    openai: bool = False
    documented: bool = True

    @property
    def allow(self) -> bytes:
        """The value of the header of that name."""
        return b",".join([*([b"POST"] if self.post else []), *([b"GET,HEAD"] if self.get else [])])


EMBED = Post(EmbedRequest, Handlers.embed, list[Vector])
EMBED_ALL = Post(EmbedAllRequest, Handlers.embed_all, list[list[Vector]])
EMBED_SPARSE = Post(EmbedSparseRequest, Handlers.embed_sparse, list[list[SparseValue]])
PREDICT = Post(PredictRequest, Handlers.predict, list[PredictionResponse | list[PredictionResponse]])
RERANK = Post(RerankRequest, Handlers.rerank, list[RankResponse])
SIMILARITY = Post(SimilarityRequest, Handlers.similarity, list[Number])
TOKENIZE = Post(TokenizeRequest, Handlers.tokenize, list[list[Token]])
DECODE = Post(DecodeRequest, Handlers.decode, list[str])
OPENAI = Post(OpenAIRequest, Handlers.openai_embed, OpenAIResponse)
VERTEX = Post(VertexRequest, vertex, VertexResponse, lambda limits: limits.max_concurrent_requests)
INFO = Get(Handlers.get_model_info, Info)
HEALTH = Get(Handlers.health)
METRICS = Get(Handlers.metrics)

ROUTES = (
    Route("/embed", post=EMBED),
    Route("/embed_all", post=EMBED_ALL),
    Route("/embed_sparse", post=EMBED_SPARSE),
    Route("/predict", post=PREDICT),
    Route("/rerank", post=RERANK),
    Route("/similarity", post=SIMILARITY),
    Route("/tokenize", post=TOKENIZE),
    Route("/decode", post=DECODE),
    Route("/v1/embeddings", post=OPENAI, openai=True),
    Route("/embeddings", post=OPENAI, openai=True, documented=False),
    Route("/vertex", post=VERTEX),
    Route("/info", get=INFO),
    Route("/health", get=HEALTH, public=True),
    Route("/ping", get=HEALTH, public=True, documented=False),
    Route("/metrics", get=METRICS, public=True),
    *(Route(path, get=Get(handle), public=True, documented=False) for path, handle in docs.PAGES.items()),
)


DEFAULTS = {"embed": EMBED, "embed_all": EMBED_ALL, "embed_sparse": EMBED_SPARSE, "predict": PREDICT, "rerank": RERANK}
"""Task -> what `POST /` and `POST /invocations` do for a model that is made for it."""


def routes(info: ModelInfo, task: str | None) -> tuple[Route, ...]:
    """All routes of a server of this model; task: the variable TASK."""
    name = default_task(info)
    is_similarity = task == "sentence-similarity" and name in ("embed", "embed_sparse")
    default = SIMILARITY if is_similarity else DEFAULTS[name]
    return (
        *ROUTES,
        Route("/", get=HEALTH, post=default, public=True, documented=False),
        Route("/invocations", post=default, documented=False),
    )
