"""A stand-in of the Hub on loopback: the listing of a repository and its files, as huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repository:
    """files: content by path; gated: files are only given to the token `accepted`; broken: files whose first download
    is cut off half way; status: answered to everything, if set."""

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    broken: set[str] = field(default_factory=set)
    status: int | None = None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


class StandinHub:
    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def add_folder(self, model_id: str, folder: Path) -> Repository:
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        repository = Repository({name: path.read_bytes() for name, path in files.items()})
        self.repositories[model_id] = repository
        return repository

    def downloads(self) -> list[str]:
        """The files that were downloaded, in order."""
        matches = (RESOLVE.fullmatch(request.path) for request in self.requests if request.method == "GET")
        return [match["file"] for match in matches if match]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one request to the hub it is made for."""

    protocol_version = "HTTP/1.0"  # a connection per request: after `stop` nothing answers
    wbufsize = -1  # head and body in one packet

    def __init__(self, hub: StandinHub, *connection: Any) -> None:
        self.hub = hub
        super().__init__(*connection)  # answers

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, path, headers))
        match = API.fullmatch(path) or RESOLVE.fullmatch(path)
        repository = self.hub.repositories.get(match["id"]) if match else None
        if match is None or repository is None:
            self.refuse(404, "RepoNotFound")
        elif repository.status is not None:
            self.refuse(repository.status, None)
        elif unquote(match["revision"]) not in (*repository.revisions, repository.commit):
            self.refuse(404, "RevisionNotFound")
        elif "file" not in match.groupdict():
            self.list_files(match["id"], repository)
        elif repository.gated and headers.get("authorization") != "Bearer accepted":
            self.refuse(403 if "authorization" in headers else 401, "GatedRepo")
        elif unquote(match["file"]) not in repository.files:
            self.refuse(404, "EntryNotFound")
        else:
            self.send_file(unquote(match["file"]), repository)

    def refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def list_files(self, model_id: str, repository: Repository) -> None:
        siblings = [{"rfilename": name, "size": len(data)} for name, data in repository.files.items()]
        body = json.dumps({"id": model_id, "sha": repository.commit, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name: str, repository: Repository) -> None:
        data = repository.files[name]
        begin = 0
        if "Range" in self.headers:
            begin = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in repository.broken:
            repository.broken.remove(name)
            self.wfile.write(data[: len(data) // 2])
        else:
            self.wfile.write(data[begin:])


@contextmanager
def standin_hub() -> Iterator[StandinHub]:
    hub = StandinHub()
    try:
        yield hub
    finally:
        hub.stop()
