"""A server that answers every request at once with the vector of a small model: shows how much wrk can take in.

python -m uvicorn bench.load.stand_in:app --port 8081 --no-access-log
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

ANSWER = json.dumps([[round(0.01 * (i % 17) - 0.08, 8) for i in range(384)]]).encode()
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())],
}
BODY = {"type": "http.response.body", "body": ANSWER}


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """An ASGI application, without a lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError("only HTTP")
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(BODY)
