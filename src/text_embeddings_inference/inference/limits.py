"""What a server lets in: enforced before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import OverloadedError


@dataclass(frozen=True, slots=True)
class Limits:
    """max_concurrent_requests: inputs in the house at a time, over all requests; max_client_batch_size: inputs of one
    request; max_batch_tokens: computed tokens of an engine batch; max_batch_requests: inputs of an engine batch, None
    for no limit.
    """

    max_concurrent_requests: int = 512
    max_client_batch_size: int = 32
    max_batch_tokens: int = 16384
    max_batch_requests: int | None = None


class Permits:
    """One permit for each input in the house. Nobody waits for one."""

    def __init__(self, count: int) -> None:
        self.free = count

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Holds `count` permits, all or none. Raises OverloadedError if there are fewer."""
        if count > self.free:
            raise OverloadedError
        self.free -= count
        try:
            yield
        finally:
            self.free += count
