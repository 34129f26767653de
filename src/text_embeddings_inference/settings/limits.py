"""What is let in, and what a batch may be."""

from __future__ import annotations

from dataclasses import dataclass

from ..machine import usable_cpus
from .options import ENGINE, LIMITS, TRANSPORT, AutoInteger, Integer, Limit, Option

DEFAULT_BATCH_TOKENS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one batch of the engine may be, and what may wait for it."""

    max_batch_tokens: int | None = Option(
        Integer(1),
        LIMITS,
        "Most tokens the engine computes in one batch, padding included",
        details="With 1000, a batch holds ten inputs of 100 tokens, or one of 1000. Larger batches use the hardware "
        "better, until it is busy or its memory full. One input can't be longer either, see `--auto-truncate`.",
        default_text=str(DEFAULT_BATCH_TOKENS),
    ).field(None)
    max_batch_requests: int | None = Option(
        Limit(), LIMITS, "Most inputs in one batch of the engine; 0: no limit", default_text="no limit"
    ).field(None)
    batch_timeout: int | None = Option(
        AutoInteger(1),
        ENGINE,
        "Seconds a batch may take in the engine: one that takes longer hangs, and the engine is replaced",
        details="auto: twenty times what its tokens took on average so far, and at least 30. See docs/reliability.md.",
        default_text="auto",
    ).field(None)
    max_queued_tokens: int | None = Option(
        Limit(),
        ENGINE,
        "Most tokens that wait for the engine; 0: no limit",
        details="What comes on top is refused with status 429, as where `--max-concurrent-requests` is reached. A "
        "request never is where nothing else waits.",
    ).field(1 << 22)

    @property
    def token_limit(self) -> int:
        """Most tokens of a batch, and of one input."""
        return DEFAULT_BATCH_TOKENS if self.max_batch_tokens is None else self.max_batch_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(BatchLimits):
    """What is let in, over all requests and in one; and what a batch may be."""

    tokenization_workers: int = Option(
        Integer(1), LIMITS, "Threads that tokenize", default_text="usable CPUs minus 1, from 1 to 64"
    ).field(factory=lambda: max(1, min(64, usable_cpus() - 1)))
    max_concurrent_requests: int = Option(
        Integer(1),
        LIMITS,
        "Most inputs that are answered at the same time",
        details="Each input of a batch counts. What comes on top is refused at once with status 429, so that clients "
        "see the pressure instead of a growing queue.",
    ).field(512)
    max_client_batch_size: int = Option(Integer(), LIMITS, "Most inputs in one request").field(32)
    payload_limit: int = Option(Integer(), LIMITS, "Largest body of an HTTP request, in bytes").field(2_000_000)
    max_queued_bytes: int | None = Option(
        Limit(),
        TRANSPORT,
        "Most bytes of all bodies of HTTP requests that are not answered yet; 0: no limit",
        details="What comes on top is refused with status 429.",
    ).field(1 << 29)
    max_connections: int = Option(
        Integer(1),
        TRANSPORT,
        "Most connections of HTTP at a time, and most calls of gRPC",
        details="One more is answered with status 503, or RESOURCE_EXHAUSTED. With `--grpc-port` a quarter of the "
        "connections is for that port. The limit of open files is raised for them as far as the process may.",
    ).field(10_000)
