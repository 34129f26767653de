"""How an answer of ours is compared with the recorded one of text-embeddings-inference 1.9.3.

Compared are the status; JSON: structure, texts and integers exactly, numbers within 2e-3, vectors by their cosine; of a
refusal that was plain text, that ours is an error object; headers that tell clients something.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.server.client import Response

TOLERANCE = 2e-3
COSINE = 0.999
FREE_BODY = {"/docs", "/docs/", "/api-doc/openapi.json", "/metrics"}
FREE_INFO = {
    *("model_id", "model_sha", "served_model_name", "version", "sha", "docker_label", "tokenization_workers"),
    *("max_batch_tokens", "max_batch_requests"),
}
"""Keys of /info that name the build, the machine or the place of the model."""
FREE_HEADERS = {"x-compute-type"}


def differences(request: dict[str, Any], want: dict[str, Any], got: Response) -> Iterator[str]:
    """What differs, in words; nothing if all is well."""
    path = urlsplit(request["path"]).path
    if got.status != want["status"]:
        yield f"status {got.status} instead of {want['status']}: {got.body[:200]!r}"
        return
    if path not in FREE_BODY:
        yield from _bodies(path, want, got, with_body=request["method"] != "HEAD")
    for name, value in want["headers"].items():
        has_type = name != "content-type" or ("json" in want and path not in FREE_BODY)
        if has_type and name not in FREE_HEADERS:
            given = {part.strip().lower() for part in got.headers.get(name, "").split(",")}
            if not given >= {part.strip().lower() for part in value.split(",")}:
                yield f"header {name}: {got.headers.get(name)!r} instead of {value!r}"
    yield from (f"header {name} is missing" for name in want["timing_headers"] if name not in got.headers)


def _bodies(path: str, want: dict[str, Any], got: Response, *, with_body: bool) -> Iterator[str]:
    if path == "/info" and "json" in want:
        yield from (f"{key} is missing" for key in want["json"] if key not in got.json)
        yield from _values({k: v for k, v in want["json"].items() if k not in FREE_INFO}, got.json, "info")
    elif "json" in want:
        yield from _values(want["json"], got.json, "body")
    elif want["status"] >= 400 and with_body:
        keys = ("message", "type") if path.endswith("/embeddings") else ("error", "error_type")
        if not all(isinstance(got.json.get(key), str) and got.json[key] for key in keys):
            yield f"no error object: {got.body!r}"


def _values(want: Any, got: Any, at: str) -> Iterator[str]:
    if isinstance(want, float):
        if not isinstance(got, float) or abs(want - got) > TOLERANCE * max(1, abs(want)):
            yield f"{at}: {got!r} instead of {want!r}"
    elif _is_vector(want):
        if not _is_vector(got) or len(got) != len(want) or _cosine(want, got) < COSINE:
            yield f"{at}: another vector"
    elif type(want) is not type(got):
        yield f"{at}: {got!r} instead of {want!r}"
    elif isinstance(want, list):
        if len(want) != len(got):
            yield f"{at}: {len(got)} items instead of {len(want)}"
        for index, pair in enumerate(zip(want, got, strict=False)):
            yield from _values(*pair, f"{at}[{index}]")
    elif isinstance(want, dict):
        for key, value in want.items():
            yield from _values(value, got[key], f"{at}.{key}") if key in got else [f"{at}.{key} is missing"]
    elif isinstance(want, str):
        yield from _texts(want, got, at)
    elif want != got:
        yield f"{at}: {got!r} instead of {want!r}"


def _texts(want: str, got: str, at: str) -> Iterator[str]:
    if want.startswith("MODEL"):  # where the model lay
        return
    if len(want) > 40 and (vector := _packed(want)) is not None:
        other = _packed(got)
        yield from [f"{at}: no vector"] if other is None else _values(vector, other, at)
    elif "Available prompts: [" in want:  # in no particular order
        if sorted(want.split('"')) != sorted(got.split('"')):
            yield f"{at}: {got!r} instead of {want!r}"
    elif want != got:
        yield f"{at}: {got!r} instead of {want!r}"


def _packed(text: str) -> list[float] | None:
    """The float32 values of a base64 text, None if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return None if len(data) < 20 or len(data) % 4 else list(struct.unpack(f"<{len(data) // 4}f", data))


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 4 and all(isinstance(x, float) for x in value)


def _cosine(a: list[float], b: list[float]) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b)) / norms if norms else float(not any(a) and not any(b))


def request_body(request: dict[str, Any]) -> bytes:
    if "raw" in request:
        raw: str = request["raw"]
        return raw.encode("latin-1")
    return json.dumps(request["json"]).encode() if "json" in request else b""
