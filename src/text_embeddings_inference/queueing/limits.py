"""What a server lets in, and what a batch may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """max_concurrent_requests: inputs in the house at a time, over all requests; max_client_batch_size: inputs of one
    request; max_batch_tokens: computed tokens of an engine batch; max_batch_requests: inputs of an engine batch, None
    for no limit; batch_timeout: seconds a batch may take in the engine, None for many times what it usually takes;
    max_queued_tokens: that wait for the engine, None for no limit.
    """

    max_concurrent_requests: int = 512
    max_client_batch_size: int = 32
    max_batch_tokens: int = 16384
    max_batch_requests: int | None = None
    batch_timeout: float | None = None
    max_queued_tokens: int | None = None
