from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session
from standin_hub import StandinHub, standin_hub

from text_embeddings_inference.checkpoint import HubAccess


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandinHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()  # the client of huggingface_hub reads the environment when it is made
    with standin_hub() as server:
        yield server
        close_session()


@pytest.fixture
def access(hub: StandinHub, tmp_path: Path) -> HubAccess:
    return HubAccess(tmp_path / "cache", endpoint=hub.endpoint)
