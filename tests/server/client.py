"""Requests to the application in process, as a server would hand them over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import unquote

from tests.fakes import fake_model
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.app import App
from text_embeddings_inference.server.http.memory_budget import MemoryBudget
from text_embeddings_inference.server.http.request import Request
from text_embeddings_inference.settings import Settings

T = TypeVar("T")

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request as the application sees it. read: so many of the chunks of its body were asked for."""

    def __init__(self, method: str, path: str, chunks: list[bytes], headers: Mapping[str, str]) -> None:
        given = {name.lower().encode(): value.encode("latin-1") for name, value in headers.items()}
        self.request = Request(method, unquote(path), given, wanted=self._send)
        self.read = 0
        self._chunks = [chunk for chunk in chunks if chunk]

    def _send(self) -> None:
        if self.read < len(self._chunks):
            self.read += 1
            self.request.feed(self._chunks[self.read - 1])
        if self.read == len(self._chunks):
            self.request.finish()

    async def answer(self, app: App) -> Response:
        reply = await app(self.request)
        assert len(dict(reply.headers)) == len(reply.headers), "a header twice"
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        return Response(reply.status, headers, b"".join(reply.body))


class Client:
    """A client of one model's application; use it as a context manager, so that the model is closed."""

    def __init__(self, model: Model | None = None, given: Settings | None = None, **settings: Any) -> None:
        self.model = model or fake_model()
        given = given or Settings.of(model_id="fake/model", **settings)
        self.app = App({"fake": self.model}, given, MemoryBudget(given.limits.max_queued_bytes))
        self._runner = asyncio.Runner()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self.model.close())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def post(self, path: str, body: Any, headers: Mapping[str, str] = JSON) -> Response:
        return self.request("POST", path, json.dumps(body).encode(), headers)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("GET", path, headers=headers or {})

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = JSON) -> Response:
        return self.run(self.answer(method, path, [body], headers))

    async def answer(self, method: str, path: str, chunks: list[bytes], headers: Mapping[str, str] = JSON) -> Response:
        return await Exchange(method, path, chunks, headers).answer(self.app)
