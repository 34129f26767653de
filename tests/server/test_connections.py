"""As many open files as there may be connections, and those that are kept for probes."""

from __future__ import annotations

import os
import resource

import pytest

from text_embeddings_inference.errors import StartError
from text_embeddings_inference.server.connections import (
    FEWEST_CONNECTIONS,
    SPARE_FILES,
    Connections,
    HeldDescriptors,
    raise_file_limit,
)


def test_no_more_than_the_limit() -> None:
    connections = Connections(2)
    assert [connections.enter() for _ in range(3)] == [True, True, False]
    connections.leave()
    assert connections.enter()


def test_held_descriptors_are_given_and_taken_back() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    held = HeldDescriptors(2)
    assert open_files() == before + 2
    assert [held.release() for _ in range(3)] == [True, True, False]
    assert open_files() == before
    held.refill()
    assert open_files() == before + 2
    held.close()
    held.refill()
    assert open_files() == before


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


def test_too_few_files_to_serve_end_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 64))
    with pytest.raises(
        StartError, match=f"only 64 files, and needs at least {SPARE_FILES + FEWEST_CONNECTIONS}"
    ) as caught:
        raise_file_limit(10_000)
    assert "ulimit -n" in str(caught.value.hint)
