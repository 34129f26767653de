"""Bodies that would fill the memory together, and as many open files as there may be connections."""

from __future__ import annotations

import asyncio
import resource

import pytest

from tests.fakes import FakeEngine, fake_model
from tests.server.client import JSON, Client, Request
from text_embeddings_inference.errors import OverloadedError
from text_embeddings_inference.server.http.memory_budget import SPARE_FILES, Room, Share, raise_file_limit


def test_a_share_is_given_back() -> None:
    room = Room(10)
    with Share(room) as first:
        first.take(4)
        first.take(4)
        with Share(room) as second, pytest.raises(OverloadedError):
            second.take(3)
        assert room.used == 8
    assert room.used == 0


def test_a_body_alone_always_has_room() -> None:
    room = Room(10)
    with Share(room) as share:
        share.take(11)
    with Share(Room(None)) as share:
        share.take(1 << 40)


def test_what_does_not_fit_beside_the_others_is_refused() -> None:
    engine = FakeEngine()
    body = b'{"inputs": "1"}'
    with Client(fake_model(engine), max_queued_bytes=len(body)) as client:

        async def scenario() -> None:
            engine.hold()
            first, second = Request("POST", "/embed", [body], JSON), Request("POST", "/embed", [body], JSON)
            running = asyncio.create_task(client.app(first.scope, first.receive, first.send))
            await asyncio.sleep(0.01)
            await client.app(second.scope, second.receive, second.send)
            assert second.response is not None
            assert (second.response.status, second.response.json["error_type"]) == (429, "Overloaded")
            engine.let()
            await running
            assert first.response is not None
            assert first.response.status == 200

        client.run(scenario())
        assert client.post("/embed", {"inputs": "1"}).status == 200


def test_open_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda which, given: limits.__setitem__(slice(None), given))
    assert raise_file_limit(100) == 100
    assert limits == [1024, 4096]
    assert raise_file_limit(2000) == 2000
    assert limits == [2000 + SPARE_FILES, 4096]
    assert raise_file_limit(10_000) == 4096 - SPARE_FILES
    assert limits == [4096, 4096]
    assert "at most 3840 connections" in caplog.text
