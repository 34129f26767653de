from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines import Models


@pytest.fixture(scope="session")
def models() -> Iterator[Models]:
    """The fixture checkpoints on every engine; each is built once."""
    made = Models()
    yield made
    made.close()
