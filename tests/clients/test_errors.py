"""What users of clients see when something is wrong: the class of the exception, and our message in it."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
import requests
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from openai import OpenAI

from tests.clients.conftest import KEY

pytestmark = pytest.mark.clients

TOO_LONG = "must have less than 48 tokens"
JSON = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


@pytest.mark.parametrize(
    ("status", "message", "inputs", "options"),
    [
        (400, "`inputs` cannot be empty", "", {}),
        (422, "batch size 40 > maximum allowed batch size 32", ["a"] * 40, {}),
        (422, TOO_LONG, "a " * 200, {"truncate": False}),
        (422, "should be smaller than the maximum embedding dimension", "a", {"dimensions": 4096}),
        (422, "`default-prompt-name` is set to `query` but", "a", {"prompt_name": "query"}),
    ],
)
def test_huggingface_hub(bert: str, status: int, message: str, inputs: Any, options: dict[str, Any]) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(bert, token=KEY).feature_extraction(inputs, **options)
    assert caught.value.response.status_code == status
    assert message in str(caught.value)


def test_huggingface_hub_at_the_limits(strict: str) -> None:
    client = InferenceClient(strict, token=KEY)
    with pytest.raises(HfHubHTTPError, match=r"(?s)429 Too Many Requests.*Model is overloaded"):
        client.feature_extraction(["a", "b"])
    with pytest.raises(HfHubHTTPError, match=r"(?s)413.*length limit exceeded"):
        client.feature_extraction("a" * 1000)
    with pytest.raises(HfHubHTTPError, match=r"(?s)401.*no valid API key"):
        InferenceClient(strict, token="wrong").feature_extraction("a")


@pytest.mark.parametrize(
    ("error", "message", "given", "options"),
    [
        (openai.BadRequestError, "`inputs` cannot be empty", "", {}),
        (openai.UnprocessableEntityError, "batch size 40 > maximum allowed batch size 32", ["a"] * 40, {}),
        (openai.UnprocessableEntityError, "`dimensions` should be positive", "a", {"dimensions": 0}),
        (openai.UnprocessableEntityError, "outside the vocabulary", [100_000], {}),
    ],
)
def test_openai(
    bert: str, error: type[openai.APIStatusError], message: str, given: Any, options: dict[str, Any]
) -> None:
    with OpenAI(base_url=f"{bert}/v1", api_key=KEY, max_retries=0) as client, pytest.raises(error) as caught:
        client.embeddings.create(model="any", input=given, **options)
    assert message in caught.value.message
    assert caught.value.type in ("Empty", "Validation")


def test_openai_at_the_limits(strict: str) -> None:
    with OpenAI(base_url=f"{strict}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="Model is overloaded"):
            client.embeddings.create(model="any", input=["a", "b"])
        with pytest.raises(openai.APIStatusError, match=r"413.*length limit exceeded"):
            client.embeddings.create(model="any", input="a" * 1000)
        with pytest.raises(openai.AuthenticationError, match="no valid API key"):
            client.with_options(api_key="wrong").embeddings.create(model="any", input="a")
        with pytest.raises(openai.NotFoundError, match="there is no route /v1/models"):
            client.models.list()


def test_openai_with_a_model_that_does_not_embed(reranker: str) -> None:
    with (
        OpenAI(base_url=f"{reranker}/v1", api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.APIStatusError, match=r"424.*Model is not an embedding model"),
    ):
        client.embeddings.create(model="any", input="a")


def test_requests(bert: str) -> None:
    form = requests.post(f"{bert}/embed", data={"inputs": "a"}, headers={"authorization": JSON["authorization"]})
    assert (form.status_code, form.json()["error_type"]) == (415, "UnsupportedMediaType")
    shape = requests.post(f"{bert}/embed", json={"inputs": ["a", {}]}, headers=JSON)
    assert shape.status_code == 422
    assert "inputs[1]" in shape.json()["error"]
    method = requests.get(f"{bert}/embed", headers=JSON)
    assert (method.status_code, method.headers["allow"]) == (405, "POST")


def test_urllib_reads_the_refusal_of_a_body_it_still_sends(strict: str) -> None:
    request = urllib.request.Request(f"{strict}/embed", data=b" " * 5_000_000, headers=JSON)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.code == 413
        assert b"length limit exceeded" in answer.read()
