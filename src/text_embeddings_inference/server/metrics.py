"""The metrics on a port of their own, for scrapers that may not reach the other one."""

from __future__ import annotations

from ..telemetry.metrics import Metrics
from .http.asgi import ASGIApp, Receive, Scope, Send
from .http.response import Reply

TEXT = (b"content-type", b"text/plain; charset=utf-8")


def metrics_app(metrics: Metrics) -> ASGIApp:
    """Any path gives the metrics, `/health` an OK."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b"OK" if scope["path"] == "/health" else metrics.render()
        await Reply(200, (TEXT,), [body]).send(send, with_body=scope["method"] != "HEAD")

    return app
