"""Requests to the application in process, as a server would hand them over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import unquote

from tests.fakes import fake_model
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.app import create_app
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


class Request:
    """One request as ASGI sees it. `gone` is set when the client leaves; `response` is there once it was answered."""

    def __init__(self, method: str, path: str, chunks: list[bytes], headers: Mapping[str, str]) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        self.read = 0
        self.gone = asyncio.Event()
        self.response: Response | None = None
        self._chunks = chunks
        self._start: dict[str, Any] = {}
        self._body = b""

    async def receive(self) -> dict[str, Any]:
        if self.read < len(self._chunks):
            self.read += 1
            more = self.read < len(self._chunks)
            return {"type": "http.request", "body": self._chunks[self.read - 1], "more_body": more}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self._start, "answered twice"
            self._start = message
            return
        assert self.response is None, "a body after its end"
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            headers = {name.decode(): value.decode() for name, value in self._start["headers"]}
            assert len(headers) == len(self._start["headers"]), "a header twice"
            self.response = Response(self._start["status"], headers, self._body)


class Client:
    """A client of one model's application; use it as a context manager, so that the model is closed."""

    def __init__(self, model: Model | None = None, given: Settings | None = None, **settings: Any) -> None:
        self.model = model or fake_model()
        given = given or Settings.of(model_id="fake/model", **settings)
        self.app: Callable[..., Coroutine[Any, Any, None]] = create_app({"fake": self.model}, given)  # type: ignore[assignment]  # ASGI says Awaitable
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
        request = Request(method, path, chunks, headers)
        await self.app(request.scope, request.receive, request.send)
        assert request.response is not None, "no answer"
        if method == "HEAD":
            assert not request.response.body
        else:
            assert int(request.response.headers["content-length"]) == len(request.response.body)
        return request.response
