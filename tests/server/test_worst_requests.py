"""The worst that one request can do, on every route: the event loop stays free for the others, the memory comes back.

Measured is the loop's own processor time between two of its turns, so that other processes do not count.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import PATIENCE
from tests.server.test_hostile_clients import Server, server

LONGEST_S = 0.1
"""Processor time between two turns of the loop."""
GROWTH = 60_000_000
"""Bytes that may be left of all of them together."""
SIZE = 2_000_000
"""Bytes of a body: the default of `--payload-limit`."""
SERVER = """
import asyncio, time
from tests.fakes import fake_info, fake_model, fake_tokenizer
from text_embeddings_inference.server import serve as module
from text_embeddings_inference.server.app import App
from text_embeddings_inference.server.http.response import Reply
from text_embeddings_inference.server.sockets import Sockets
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Kind


class Watched(App):
    longest = 0.0
    watching = None

    async def watch(self):
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.002)
            now = time.thread_time()
            self.longest, last = max(self.longest, now - last), now

    async def __call__(self, request):
        self.watching = self.watching or asyncio.create_task(self.watch())
        if request.path != "/longest":
            return await super().__call__(request)
        longest, self.longest = self.longest, 0.0
        return Reply(200, (), [b"%f" % longest])


module.App = Watched
settings = Settings.of(model_id="fake", hostname="127.0.0.1", port=0, prometheus_port=0)
sockets = Sockets.bind(settings)
print(sockets.http.getsockname()[1], flush=True)
model = fake_model(info=fake_info(Kind.KIND), tokenizer=fake_tokenizer(max_input_length=512))
module.serve({"fake": model}, settings, sockets)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process in /proc")


def filled(before: str, part: str, after: str) -> bytes:
    """A body of SIZE bytes that repeats a part, without the last comma."""
    count = (SIZE - len(before) - len(after)) // len(part)
    return (before + (part * count).rstrip(",") + after).encode()


def of_inputs(field: str) -> Iterator[bytes]:
    """For routes that take texts or lists of ids."""
    yield filled(f'{{"{field}": [', '"1",', "]}")
    yield filled(f'{{"{field}": [', "[1],", "]}")
    yield filled(f'{{"{field}": [', '"1",[1],', "]}")
    yield filled(f'{{"{field}": [', "1,", "]}")
    yield filled(f'{{"{field}": [[', "1,", "]]}")
    yield filled(f'{{"{field}": [1,', '"1",', "]}")
    yield filled(f'{{"{field}": "', "1 ", '"}')
    yield filled(f'{{"{field}": "', "\ufdfa", '"}')[:SIZE].decode(errors="ignore").encode() + b'"}'
    yield filled(f'{{"{field}": "', '\\"', '"}')
    yield filled(f'{{"{field}": "', "\\ud800", '"}')
    yield filled(f'{{"{field}": ', "[", "")
    yield filled("{", f'"{field}": "1",', '"x": 1}')
    yield filled(f'{{"{field}": "1", "x": [', "{},", "]}")
    yield filled(f'{{"{field}": "1", "x": [', f'{{"{field}": 1}},', "1]}")
    yield filled(f'{{"{field}": "', "\\\\", "")
    yield filled('{"', '\\"', "")
    yield filled("", "\n", "{")


def bodies() -> Iterator[tuple[str, bytes]]:
    for path in ("/embed", "/embed_all", "/embed_sparse", "/tokenize"):
        yield from ((path, body) for body in of_inputs("inputs"))
    yield from (("/v1/embeddings", body) for body in of_inputs("input"))
    yield from (("/decode", body) for body in of_inputs("ids"))
    yield from (
        ("/vertex", filled('{"instances": [', part, "]}")) for part in ('{"inputs":"1"},', "{},", "1,", "[[]],")
    )
    yield "/vertex", filled('{"instances": [{"inputs": [', '"1",', "]}]}")
    yield "/vertex", json.dumps({"instances": [{"inputs": ["1 2 3"] * 32}] * 512}).encode()
    for part in ('["1"],', '["1","2"],', '"1",', "[],"):
        yield "/predict", filled('{"inputs": [', part, "]}")
    yield "/predict", filled('{"inputs": [[', '"1",', "]]}")
    yield "/rerank", filled('{"query": "1", "texts": [', '"1",', "]}")
    yield "/rerank", filled('{"texts": ["1", "2"], "return_text": true, "query": "', "1 ", '"}')
    yield "/similarity", filled('{"inputs": {"source_sentence": "1", "sentences": [', '"1",', "]}}")
    yield "/similarity", filled('{"inputs": {"sentences": ["1"], "source_sentence": "', "1 ", '"}}')


@contextmanager
def probing(target: Server) -> Iterator[None]:
    """Asks for /health every 50 ms meanwhile; it must be answered each time."""
    statuses: list[int] = []
    end = threading.Event()

    def ask() -> None:
        while not end.wait(0.05):
            statuses.append(get(target.port, "/health")[0])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        end.set()
        asking.join()
    assert set(statuses) == {200}


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


@pytest.mark.parametrize("kind", ["EMBEDDING", "RERANKER"])
def test_the_worst_bodies(kind: str) -> None:
    slow: list[Any] = []
    with server(SERVER.replace("KIND)", f"{kind})")) as target, probing(target):
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE)
        before = 0
        for number, (path, body) in enumerate(bodies()):
            get(target.port, "/longest")
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 400, 413, 422, 424, 429), (path, body[:60])
            longest = float(get(target.port, "/longest")[1])
            if longest > LONGEST_S:
                slow.append((path, body[:60], response.status, longest))
            before = before or (target.memory() if number == 10 else 0)  # once everything has been used
        connection.close()
        growth = target.memory() - before
    assert not slow
    assert growth < GROWTH
