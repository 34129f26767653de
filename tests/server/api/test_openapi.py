"""The OpenAPI document: pinned, complete, and true of what the routes take and give; and the page that shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.server.client import Client
from text_embeddings_inference.errors import PRESENTATION
from text_embeddings_inference.server.api.openapi import PATH, document
from text_embeddings_inference.server.api.routes import ROUTES
from text_embeddings_inference.server.http import errors

SNAPSHOT = Path(__file__).parents[2] / "snapshots" / "openapi.json"
OPERATIONS = {
    *("embed", "embed_all", "embed_sparse", "predict", "rerank", "similarity", "tokenize", "decode", "openai_embed"),
    *("get_model_info", "health", "metrics", "vertex"),
}


def as_text(found: Any) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def test_document_is_as_pinned() -> None:
    """To renew, after looking at the difference: write `as_text(document(ROUTES))` to the snapshot."""
    assert as_text(document(ROUTES)) == SNAPSHOT.read_text()


def test_document_is_served() -> None:
    with Client(api_key=("secret",)) as client:
        found = client.get(PATH)
    assert (found.status, found.json) == (200, document(ROUTES))


def test_names_of_operations() -> None:
    operations = [operation for path in document(ROUTES)["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == OPERATIONS
    assert all(operation["summary"] for operation in operations)


def test_every_status_of_errors_is_described() -> None:
    """404, 405 and 501 (a transfer coding) answer what is not in the document."""
    reasons = [value for value in vars(errors).values() if isinstance(value, errors.Reason)]
    statuses = {reason.status for reason in reasons} | {shown.http_status for shown in PRESENTATION.values()}
    described: set[int] = set()
    for path in document(ROUTES)["paths"].values():
        for operation in path.values():
            described |= {int(status) for status in operation["responses"]}
    assert described == (statuses | {200}) - {404, 405, 501}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        value = list(value.values())
    for item in value if isinstance(value, list) else []:
        yield from references(item)


def test_every_reference_leads_somewhere() -> None:
    found = document(ROUTES)
    targets = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert set(references(found)) == targets


def test_defaults_are_those_of_the_decoder() -> None:
    properties = document(ROUTES)["components"]["schemas"]["EmbedRequest"]["properties"]
    assert {name: schema.get("default", "required") for name, schema in properties.items()} == {
        "inputs": "required",
        "truncate": None,
        "truncation_direction": "Right",
        "prompt_name": None,
        "normalize": True,
        "dimensions": None,
    }


def test_docs_page_needs_no_other_host() -> None:
    with Client() as client:
        redirect = client.get("/docs")
        page = client.get("/docs/").body.decode()
        script = client.get("/docs/docs.js")
        assert (redirect.status, redirect.headers["location"]) == (303, "/docs/")
        names = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert "docs.js" in names
        for name in names:
            if not name.startswith("data:"):
                found = client.get(f"/docs/{name}")
                assert found.status == 200, name
                assert "default-src 'self'" in found.headers["content-security-policy"]
        assert client.get("/docs/nothing.js").status == 404
    assert b'url: "../api-doc/openapi.json"' in script.body
    assert b"validatorUrl: null" in script.body


@pytest.mark.parametrize("name", ["swagger-ui-LICENSE", "swagger-ui-NOTICE", "swagger-ui-bundle.js.LICENSE"])
def test_licences_are_in_the_package(name: str) -> None:
    assert files("text_embeddings_inference.server.api").joinpath("static", f"{name}.txt").read_text()
