"""What bodies are taken, and how the others are refused: status, place of the fault, never anything but a rejection."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from msgspec import Struct

from text_embeddings_inference.errors import BatchSizeError
from text_embeddings_inference.server.api.openai import OpenAIRequest
from text_embeddings_inference.server.api.requests import (
    DecodeRequest,
    EmbedRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    TokenizeRequest,
    embed_inputs,
    predict_inputs,
)
from text_embeddings_inference.server.api.vertex import VertexRequest
from text_embeddings_inference.server.http.counting import MOST_VALUES
from text_embeddings_inference.server.http.decoding import BodyDecoder
from text_embeddings_inference.server.http.errors import RejectedError

DIRECTIONS = "`Left` or `left` or `Right` or `right`"


def refusal(body: str | bytes | dict[str, Any], body_type: type[Struct] = EmbedRequest) -> tuple[int, str]:
    if isinstance(body, dict):
        body = json.dumps(body)
    with pytest.raises(RejectedError) as caught:
        BodyDecoder(body_type).decode(body if isinstance(body, bytes) else body.encode())
    return caught.value.reason.status, str(caught.value)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "the text ends too early at line 1 column 1"),
        ('{"inputs": "a"', "the text ends too early at line 1 column 15"),
        ('{"inputs": "a",}', "trailing comma in object at line 1 column 16"),
        ('{\n  "inputs": x}', "invalid character at line 2 column 13"),
        ("{1: 2}", "object keys must be strings at line 1 column 2"),
        ('{"inputs": "a", "x": 01}', "invalid number at line 1 column 23"),
        ('{"inputs": "\\ude80"}', "lone surrogate \\ude80, which is no character at line 1 column 13"),
        ('{"inputs": ["a", "x\\uD800"]}', "lone surrogate \\uD800, which is no character at line 1 column 20"),
        (
            '{"inputs": "\\ud83d\\ude00 \\ud83d\\u0041"}',
            "lone surrogate \\ud83d, which is no character at line 1 column 26",
        ),
        ('{"inputs": "a", "x": "\\\\\\udc00"}', "lone surrogate \\udc00, which is no character at line 1 column 25"),
        ('{"inputs": "\\ud8', "the text ends too early at line 1 column 17"),
        (b'{"inputs":\n"\xff"}', "not UTF-8: invalid start byte at line 2 column 2"),
        (b'{"inputs": "a", "ignored": "\xff"}', "not UTF-8: invalid start byte at line 1 column 29"),
        ('{"inputs": "a", "ignored": ' + "[" * 100_000, "recursion limit exceeded"),
    ],
)
def test_bad_json(body: str | bytes, problem: str) -> None:
    assert refusal(body) == (400, f"Failed to parse the request body as JSON: {problem}")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("3", "Expected `object`, got `int`"),
        ("{}", "Object missing required field `inputs`"),
        ('{"inputs": null}', "inputs: Expected `str | array`, got `null`"),
        ('{"inputs": ["a", null]}', "inputs[1]: Expected `int | str | array`, got `null`"),
        ('{"inputs": [["a", "b"]]}', "inputs[0][0]: Expected `int`, got `str`"),
        ('{"inputs": [1, 2.0]}', "inputs[1]: Expected `int | str | array`, got `float`"),
        ('{"inputs": [-1]}', "inputs[0]: Expected `int` >= 0"),
        ('{"inputs": [[4294967296]]}', "inputs[0][0]: Expected `int` <= 4294967295"),
        ('{"inputs": [5, "a"]}', "inputs[1]: A list can't hold both token ids and whole inputs"),
        ('{"inputs": ["a", [1], 5]}', "inputs[2]: A list can't hold both token ids and whole inputs"),
        ('{"inputs": "a", "normalize": null}', "normalize: Expected `bool`, got `null`"),
        ('{"inputs": "a", "dimensions": 4.0}', "dimensions: Expected `int | null`, got `float`"),
        (
            '{"inputs": "a", "truncation_direction": "LEFT"}',
            f"truncation_direction: Invalid enum value 'LEFT': expected {DIRECTIONS}",
        ),
        ('{"inputs": "a", "truncation_direction": {}}', "truncation_direction: Expected `str`, got `object`"),
        ('{"inputs": "a", "truncate": true, "inputs": "b"}', "inputs: duplicate field `inputs`"),
    ],
)
def test_wrong_shape(body: str, problem: str) -> None:
    assert refusal(body) == (422, f"Failed to deserialize the JSON body into the target type: {problem}")


def test_every_enum_field_names_its_values() -> None:
    openai = refusal('{"input": "a", "encoding_format": "md5"}', OpenAIRequest)[1]
    assert openai.endswith("encoding_format: Invalid enum value 'md5': expected `float` or `base64`")
    inner = '{"inputs": {"source_sentence": "a", "sentences": []}, "parameters": {"truncation_direction": "up"}}'
    assert refusal(inner, SimilarityRequest)[1].endswith(f"direction: Invalid enum value 'up': expected {DIRECTIONS}")


@pytest.mark.parametrize("value", ["null", "3", "true", "[]"])
def test_enum_field_that_is_no_string_is_a_syntax_error(value: str) -> None:
    """As in text-embeddings-inference."""
    status, message = refusal(f'{{"inputs": "a", "truncation_direction": {value}}}')
    assert status == 400
    assert message.startswith("Failed to parse the request body as JSON: truncation_direction: Expected `str`")
    assert refusal(f'{{"input": "a", "encoding_format": {value}}}', OpenAIRequest)[0] == 400


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ([], "inputs"),
        (["a", "b", "c"], "inputs"),
        ([[]], "inputs[0]"),
        ([["a"], ["b", "c", "d"]], "inputs[1]"),
        ([["a"], "b"], "inputs[1]"),
        (["a", None], "inputs[1]"),
        ([1], "inputs[0]"),
    ],
)
def test_wrong_predict_inputs(inputs: Any, place: str) -> None:
    status, message = refusal({"inputs": inputs}, PredictRequest)
    assert status == 422
    assert message.startswith(f"Failed to deserialize the JSON body into the target type: {place}: ")


def test_places_inside_objects() -> None:
    body = '{"inputs": {"source_sentence": "a", "sentences": ["b", 1]}}'
    assert "inputs.sentences[1]: Expected `str`" in refusal(body, SimilarityRequest)[1]
    twice = '{"inputs": {"source_sentence": "a", "sentences": [], "sentences": []}}'
    assert "inputs.sentences: duplicate field `sentences`" in refusal(twice, SimilarityRequest)[1]


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs": "a"} junk',
        '{"inputs": "a"}}',
        ' \n{"inputs": "a"}\n',
        '{"inputs": "a", "colour": ["blue", {"inputs": 1}]}',
        '{"colour": 1, "inputs": "a", "colour": 2}',
    ],
)
def test_what_is_ignored(body: str) -> None:
    assert BodyDecoder(EmbedRequest).decode(body.encode()).inputs == "a"


def test_names_of_fields_inside_texts_are_no_duplicates() -> None:
    assert BodyDecoder(EmbedRequest).decode(b'{"inputs": ["inputs", "\\"inputs\\""]}').inputs == ["inputs", '"inputs"']


@pytest.mark.parametrize(
    ("value", "items", "method"),
    [
        ("a", ["a"], "single"),
        ([], [[]], "single"),
        ([1, 2], [[1, 2]], "single"),
        (["a"], ["a"], "batch"),
        ([[]], [[]], "batch"),
        (["a", [5]], ["a", [5]], "batch"),
    ],
)
def test_embed_inputs(value: Any, items: Any, method: str) -> None:
    assert embed_inputs(value, vocabulary=10, field="x") == (items, method, "x")


@pytest.mark.parametrize(
    ("value", "items", "method"),
    [
        ("a", ["a"], "single"),
        (["a"], ["a"], "single"),
        (["a", "b"], [("a", "b")], "single"),
        ([["a"], ["b", "c"]], ["a", ("b", "c")], "batch"),
    ],
)
def test_predict_inputs(value: Any, items: Any, method: str) -> None:
    assert predict_inputs(value) == (items, method, "inputs")


TYPES: list[type[Struct]] = [
    *(EmbedRequest, PredictRequest, RerankRequest, SimilarityRequest, TokenizeRequest, DecodeRequest, OpenAIRequest),
    VertexRequest,
]
SEEDS = [
    b'{"inputs": ["a\\u00e9", [1, 2]], "truncate": true, "dimensions": 3, "truncation_direction": "Left"}',
    b'{"query": "q", "texts": ["t", "u"], "return_text": true}',
    b'{"inputs": {"source_sentence": "s", "sentences": ["t"]}, "parameters": {"truncate": null}}',
    b'{"instances": [{"inputs": "a"}, {"query": 1}], "ids": [1, [2]], "input": [[1e5]], "encoding_format": "base64"}',
]
BITS = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\u", b"\xff", b"\xed\xa0\x80", b"null", b"-1", b"1e400", b"\x00"]


@pytest.mark.parametrize("body_type", TYPES, ids=lambda body_type: body_type.__name__)
def test_damaged_bodies_are_decoded_or_rejected(body_type: type[Struct]) -> None:
    """Nothing else may happen, whatever the bytes are."""
    random_ = random.Random(7)
    decoder = BodyDecoder(body_type)
    rejected = []
    for _ in range(1500):
        body = bytearray(random_.choice(SEEDS))
        for _ in range(random_.randint(0, 3)):
            place = random_.randrange(len(body) + 1)
            body[place : place + random_.randint(0, 4)] = random_.choice([*BITS, bytes(body[:place])])
        try:
            decoder.decode(bytes(body))
        except RejectedError as error:
            rejected.append((error.reason.status, str(error)[:10]))
    assert set(rejected) == {(400, "Failed to "), (422, "Failed to ")}


# --- large bodies -----------------------------------------------------------------------------------------------------

MOST = 40
MANY = 30_000
TOO_MANY: dict[str, tuple[type[Struct], Any]] = {
    "texts": (EmbedRequest, {"inputs": ["1"] * MANY}),
    "lists of ids": (EmbedRequest, {"inputs": [[1]] * MANY}),
    "texts and lists": (EmbedRequest, {"inputs": ["1", [1]] * MANY}),
    "texts for OpenAI": (OpenAIRequest, {"input": ["1"] * MANY}),
    "pairs": (PredictRequest, {"inputs": [["1", "2"]] * MANY}),
    "texts to rank": (RerankRequest, {"query": "1", "texts": ["1"] * MANY}),
    "sentences": (SimilarityRequest, {"inputs": {"source_sentence": "1", "sentences": ["1"] * MANY}}),
    "texts to tokenize": (TokenizeRequest, {"inputs": ["1"] * MANY}),
    "ids to decode": (DecodeRequest, {"ids": [[1]] * MANY}),
    "instances": (VertexRequest, {"instances": [{"inputs": "1"}] * MANY}),
    "ids and texts": (EmbedRequest, {"inputs": [1] + ["1"] * MANY}),
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_items_are_counted_before_they_are_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body_type, body = TOO_MANY[kind]
    decoder = BodyDecoder(body_type)
    monkeypatch.setattr(body_type, "__post_init__", lambda _: pytest.fail("it was decoded"), raising=False)
    with pytest.raises(BatchSizeError, match=f"batch size over 1024 > maximum allowed batch size {MOST}"):
        decoder.decode(json.dumps(body).encode(), most_items=MOST)


@pytest.mark.parametrize(
    ("body_type", "body"),
    [
        (PredictRequest, {"inputs": [["1"] * MANY]}),
        (EmbedRequest, {"inputs": [[[1]] * MANY]}),
        (VertexRequest, {"instances": [{"inputs": ["1"] * MANY}]}),
    ],
)
def test_too_much_inside_an_item(body_type: type[Struct], body: Any) -> None:
    with pytest.raises(RejectedError, match="texts, lists and fields"):
        BodyDecoder(body_type).decode(json.dumps(body).encode(), most_items=MOST)


@pytest.mark.parametrize("text", ["a, b, c, \\" * 500, '"[{,}]\\' * 500, "é,\n" * 500])
def test_few_large_items_are_decoded_whatever_is_in_them(text: str) -> None:
    body = json.dumps({"inputs": [text] * 41}).encode()
    assert BodyDecoder(EmbedRequest).decode(body, most_items=40).inputs == [text] * 41


@pytest.mark.parametrize("inputs", [[7] * MANY, [[7] * MANY, [8]], "a, " * MANY])
def test_a_long_input_is_one(inputs: Any) -> None:
    body = json.dumps({"inputs": inputs}).encode()
    assert BodyDecoder(EmbedRequest).decode(body, most_items=2).inputs == inputs


@pytest.mark.parametrize(
    "inputs", [[7] * (MOST_VALUES + 2), [[7] * (MOST_VALUES + 2)], [[8], [7] * (MOST_VALUES + 2), "1"]]
)
def test_more_ids_than_any_model_takes(inputs: Any) -> None:
    with pytest.raises(RejectedError, match=f"inputs: more than {MOST_VALUES} values"):
        BodyDecoder(EmbedRequest).decode(json.dumps({"inputs": inputs}).encode(), most_items=MOST)


def test_duplicates_around_large_values() -> None:
    text = json.dumps('"inputs": ' * 3000)
    once = f'{{"x": {text}, "inputs": {text}, "truncate": true}} {text}'
    assert BodyDecoder(EmbedRequest).decode(once.encode(), most_items=2).truncate
    for twice in (
        f'{{"inputs": {text}, "inputs": {text}}}',
        f'{{"inputs": {text}, "truncate": true, "truncate": true}}',
    ):
        assert "duplicate field" in refusal(twice)[1]
    inner = f'{{"inputs": {{"source_sentence": {text}, "source_sentence": "a", "sentences": []}}}}'
    assert "inputs.source_sentence: duplicate field" in refusal(inner, SimilarityRequest)[1]


@pytest.mark.parametrize("size", [0, 20_000])
def test_names_written_with_escapes_are_the_same_names(size: int) -> None:
    long = "x" * size
    twice = f'{{"inputs": "{long}", "\\u0069nputs": "b"}}'
    assert "inputs: duplicate field `inputs`" in refusal(twice)[1]
    assert BodyDecoder(EmbedRequest).decode(f'{{"\\u0069nputs": "{long}a"}}'.encode()).inputs == f"{long}a"


def test_escaped_pairs_of_surrogates_are_characters_whatever_follows() -> None:
    message = refusal('{"inputs": "\\ud83d\\ude00 \\\\ud800", "x": "\\ud83d"}')[1]
    assert "lone surrogate \\ud83d, which is no character at line 1 column 42" in message
