"""Queries and documents of models for late interaction, against the reference's token ids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fixture_tokenizers import MODELS, load, read

from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, InputError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.tokenization import Tokenizer
from text_embeddings_inference.types import EncodeOptions, Encoding, Input, LateInteraction

LATE = open_checkpoint(MODELS / "colbert", facts_of).late
assert LATE is not None
EXPECTED = read(MODELS / "colbert" / "expected.json")["colbert"]
QUERY, DOCUMENT = EncodeOptions(prompt_name="query"), EncodeOptions(prompt_name="document")
CLS, SEP, MASK, Q, D, COMMA = 2, 3, 4, 900, 901, 84


def tokenizer(late: LateInteraction | None = LATE, **changes: Any) -> Tokenizer:
    return load("colbert", late=late, **changes)


def encode(item: Input, options: EncodeOptions, **changes: Any) -> Encoding:
    [encoding] = tokenizer(**changes).encode([item], options)
    assert isinstance(encoding, Encoding), encoding
    return encoding


@pytest.mark.parametrize("case", EXPECTED["queries"], ids=lambda case: case["text"])
def test_queries(case: dict[str, Any]) -> None:
    encoding = encode(case["text"], QUERY)
    assert encoding.input_ids.tolist() == case["input_ids"]
    assert encoding.input_ids.dtype == np.int32
    assert encoding.attended == sum(case["attention_mask"])
    assert encoding.kept is None


@pytest.mark.parametrize("case", EXPECTED["documents"], ids=lambda case: case["text"])
def test_documents(case: dict[str, Any]) -> None:
    encoding = encode(case["text"], DOCUMENT)
    assert encoding.input_ids.tolist() == case["input_ids"]
    assert encoding.attended is None
    assert encoding.kept is not None
    assert encoding.kept.tolist() == case["kept_positions"]


def test_texts_without_a_role_are_left_alone() -> None:
    encoding = encode("What is Deep Learning?", EncodeOptions())
    assert encoding.input_ids.tolist() == [CLS, 899, 248, 720, 602, 103, SEP]
    assert (encoding.attended, encoding.kept) == (None, None)


def test_default_role() -> None:
    assert encode("a", EncodeOptions(), default_role="document").input_ids[1] == D
    assert encode("a", QUERY, default_role="document").input_ids[1] == Q


@pytest.mark.parametrize(("options", "length"), [(QUERY, 20), (DOCUMENT, 40)])
def test_long_texts_are_cut_to_the_length_of_their_role(options: EncodeOptions, length: int) -> None:
    encoding = encode("the cat sat " * 50, options)
    assert len(encoding) == length
    assert (encoding.input_ids[0], encoding.input_ids[-1]) == (CLS, SEP)
    assert encoding.attended is None, "nothing was left to fill up"


def test_long_texts_may_be_refused() -> None:
    [problem] = tokenizer().encode(["the cat sat " * 50], replace(QUERY, truncate=False))
    assert isinstance(problem, InputError)
    assert "must have less than 19 tokens" in str(problem)


def test_token_ids() -> None:
    encoding = encode([CLS, 7, SEP], QUERY)
    assert encoding.input_ids.tolist() == [CLS, Q, 7, SEP, *[MASK] * 16]
    assert len(encode([7] * 60, DOCUMENT)) == 40


def test_settings_of_the_model() -> None:
    assert LATE is not None
    seen = replace(LATE, attend_to_expansion=True)
    assert encode("a", QUERY, late=seen).attended is None
    plain = replace(LATE, query_prefix="", expansion_token="", skipped=())
    assert encode("a", QUERY, late=plain).input_ids.tolist() == encode("a", EncodeOptions()).input_ids.tolist()
    kept = encode("a, b", DOCUMENT, late=plain).kept
    assert kept is not None
    assert len(kept) == len(encode("a, b", DOCUMENT))


def test_a_prompt_of_the_same_name_is_put_before_the_text() -> None:
    ids = encode("cat", QUERY, prompts={"query": "the "}).input_ids.tolist()
    assert ids == encode("the cat", QUERY).input_ids.tolist()


def test_roles_are_unknown_to_other_models() -> None:
    [problem] = tokenizer(late=None).encode(["a"], QUERY)
    assert isinstance(problem, InputError)


def test_tokens_are_shown_without_what_a_role_adds() -> None:
    [tokens] = tokenizer().tokenize(["a"], prompt_name="query")
    assert not isinstance(tokens, InputError)
    assert isinstance(tokens, list)
    assert tokens[0].id == CLS
    assert Q not in [token.id for token in tokens]


def test_a_prefix_that_is_no_token() -> None:
    assert LATE is not None
    with pytest.raises(CheckpointError, match="no token '\\[unused0\\]'"):
        tokenizer(late=replace(LATE, query_prefix="[unused0]"))


def test_a_length_without_room() -> None:
    assert LATE is not None
    with pytest.raises(CheckpointError, match="`query_length` of 3 tokens has no room"):
        tokenizer(late=replace(LATE, query_length=3))
