"""Every route, as data: its path, what answers it, and the dialect it speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...inference.tasks import default_task
from ...types import ModelInfo
from ..accounting import Served
from ..http.response import Reply
from . import docs, info, openai
from .openai import OPENAI
from .operation import Dialect, Post
from .tei import DECODE, EMBED, EMBED_ALL, EMBED_SPARSE, PREDICT, RERANK, SIMILARITY, TEI, TOKENIZE
from .vertex import VERTEX


@dataclass(frozen=True, slots=True)
class Get:
    """Answers GET and HEAD."""

    handle: Callable[[Served], Awaitable[Reply]]
    result: Any = None
    """The type of the JSON body, None where it is none."""

    @property
    def name(self) -> str:
        return self.handle.__name__

    @property
    def summary(self) -> str:
        return (self.handle.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, and what answers the requests for it."""

    path: str
    get: Get | None = None
    post: Post | None = None
    dialect: Dialect = TEI
    public: bool = False
    """GET needs no key (POST always does)."""
    documented: bool = True
    """Whether it is in the OpenAPI document."""

    @property
    def allow(self) -> bytes:
        """The value of the header of that name."""
        return b",".join([*([b"POST"] if self.post else []), *([b"GET,HEAD"] if self.get else [])])


INFO = Get(info.get_model_info, info.Info)
HEALTH = Get(info.health)
METRICS = Get(info.metrics)

ROUTES = (
    Route("/embed", post=EMBED),
    Route("/embed_all", post=EMBED_ALL),
    Route("/embed_sparse", post=EMBED_SPARSE),
    Route("/predict", post=PREDICT),
    Route("/rerank", post=RERANK),
    Route("/similarity", post=SIMILARITY),
    Route("/tokenize", post=TOKENIZE),
    Route("/decode", post=DECODE),
    Route("/v1/embeddings", post=openai.EMBED, dialect=OPENAI),
    Route("/embeddings", post=openai.EMBED, dialect=OPENAI, documented=False),
    Route("/vertex", post=VERTEX),
    Route("/info", get=INFO),
    Route("/health", get=HEALTH, public=True),
    Route("/ping", get=HEALTH, public=True, documented=False),
    Route("/metrics", get=METRICS, public=True),
    *(Route(path, get=Get(handle), public=True, documented=False) for path, handle in docs.PAGES.items()),
)


DIALECTS = {"/v1/": OPENAI}
"""Beginning of paths -> the dialect of those below it that are no routes."""

DEFAULTS: Mapping[str, Post] = {post.name: post for post in (EMBED, EMBED_ALL, EMBED_SPARSE, PREDICT, RERANK)}
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
