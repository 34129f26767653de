"""What happens to every request around what answers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..auth import Keys
from .errors import NOT_JSON, TOO_LARGE, UNAUTHORIZED, RejectedError
from .memory_budget import Share
from .request import Request
from .response import Header, Reply

ORIGIN = b"access-control-allow-origin"
VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")


class Cors:
    """What lets browsers call from other origins, and the answer to every OPTIONS request.

    origins: that may call; none, or `*` among them: all may. allowed: path -> value of its header `allow`.
    """

    def __init__(self, origins: Iterable[str], allowed: Mapping[str, bytes]) -> None:
        self._origins = {origin.encode() for origin in origins}
        self._any = not self._origins or b"*" in self._origins
        self._allowed = allowed

    def headers(self, request: Request) -> tuple[Header, ...]:
        """To be put into every answer."""
        if self._any:
            return VARY, (ORIGIN, b"*")
        origin = request.header(b"origin")
        return (VARY, (ORIGIN, origin)) if origin in self._origins else (VARY,)

    def preflight(self, request: Request) -> Reply:
        """The answer to OPTIONS."""
        headers: list[Header] = [
            (b"access-control-allow-methods", b"GET,POST"),
            (b"access-control-allow-headers", b"content-type,authorization"),
        ]
        if request.path in self._allowed:
            headers.append((b"allow", self._allowed[request.path]))
        return Reply(200, tuple(headers), [])


def require_key(keys: Keys, request: Request) -> None:
    """Raises RejectedError unless the request has a key."""
    if keys.required and not keys.accept(request.header(b"authorization")):
        raise RejectedError(UNAUTHORIZED, "no valid API key: send `Authorization: Bearer <key>`")


def require_json(request: Request) -> None:
    """Raises RejectedError unless the body is said to be JSON, as it is."""
    media_type = request.header(b"content-type").partition(b";")[0].strip().lower()
    if media_type != b"application/json" and not (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    ):
        raise RejectedError(NOT_JSON, "Expected request with `Content-Type: application/json`")
    coding = request.header(b"content-encoding").strip().lower()
    if coding not in (b"", b"identity"):
        problem = f"Bodies can't be compressed: `Content-Encoding: {coding.decode('latin-1')[:40]}` is not understood"
        raise RejectedError(NOT_JSON, problem, ((b"accept-encoding", b"identity"),))


async def read_body(request: Request, limit: int, share: Share) -> bytes:
    """The body.

    Raises RejectedError once it is longer than `limit` bytes, and OverloadedError if it does not fit into the budget.
    """
    announced = request.header(b"content-length")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while part := await request.part():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        share.take(len(part))
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> RejectedError:
    return RejectedError(TOO_LARGE, f"Failed to buffer the request body: length limit exceeded ({limit} bytes)")
