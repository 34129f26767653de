"""Pairs in a template: what is cut of which text, and that it does not matter how much of a long one was tokenized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fixture_tokenizers import words
from hypothesis import given, settings
from hypothesis import strategies as st

from text_embeddings_inference.errors import InputError
from text_embeddings_inference.tokenization import TextOptions, Tokenizer
from text_embeddings_inference.types import EncodeOptions, Encoding, Pair, PairTemplate, Slot

WORDS = ["[UNK]", "Q", "D", "END", "I", "q0", "q1", "q2", "q3", "d0", "d1", "d2", "d3", "i"]
LIMIT = 16
PLAIN = (("Q ", Slot.QUERY, " D ", Slot.DOCUMENT), ("END",))
INSTRUCTED = (("I ", Slot.INSTRUCTION, " Q ", Slot.QUERY, " D ", Slot.DOCUMENT), ("END",))


TEMPLATE = PairTemplate(PLAIN, INSTRUCTED)


def tokenizer(template: PairTemplate = TEMPLATE, **changes: Any) -> Tokenizer:
    vocabulary = {word: id_ for id_, word in enumerate(WORDS)}
    arguments = {"max_input_length": LIMIT, "vocabulary": len(WORDS), "template": template}
    return Tokenizer(words(vocabulary), TextOptions(**(arguments | changes)))


def encoded(made: Tokenizer, *pairs: Pair, **options: Any) -> list[str]:
    """What is run for each pair, as words."""
    results = made.encode(pairs, EncodeOptions(**options))
    for result in results:
        if not isinstance(result, Encoding):
            raise result
    return [" ".join(WORDS[id_] for id_ in result.input_ids) for result in results if isinstance(result, Encoding)]


def numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{i % 4}" for i in range(count)]


def wanted(query: int, document: int, direction: str) -> str:
    """The rule: the document is cut first, but a query has at most three quarters of the limit."""
    queries, documents = numbered("q", query), numbered("d", document)
    if query + document + 3 > LIMIT:
        queries = queries[: LIMIT * 3 // 4]
        room = max(LIMIT - 3 - len(queries), 0)
        documents = documents[:room] if direction == "right" else documents[max(len(documents) - room, 0) :]
        queries = queries[: LIMIT - 3 - len(documents)]
    return " ".join(["Q", *queries, "D", *documents, "END"])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(0, 400), st.sampled_from(["left", "right"]))
def test_document_is_cut_first_and_the_template_never(query: int, document: int, direction: str) -> None:
    pair = (" ".join(numbered("q", query)), " ".join(numbered("d", document)))
    assert encoded(tokenizer(), pair, direction=direction) == [wanted(query, document, direction)]


def test_many_pairs_at_once_are_what_each_is_alone() -> None:
    made = tokenizer()
    pairs = [(" ".join(numbered("q", q)), " ".join(numbered("d", d))) for q in (1, 9, 40) for d in (0, 5, 200)]
    assert encoded(made, *pairs) == [encoded(made, pair)[0] for pair in pairs]


def test_words_far_longer_than_usual() -> None:
    """So that what is tokenized at first of a document has too few tokens."""
    document = " ".join(["x" * 500, *numbered("d", 3), "y" * 500, *numbered("d", 200)])
    (found,) = encoded(tokenizer(), ("q0", document))
    assert found == " ".join(["Q q0 D [UNK] d0 d1 d2 [UNK]", *numbered("d", LIMIT - 9), "END"])


def test_instructions() -> None:
    pair = ("q0", "d0")
    assert encoded(tokenizer(), pair) == ["Q q0 D d0 END"]
    assert encoded(tokenizer(), pair, instruction="i") == ["I i Q q0 D d0 END"]
    assert encoded(tokenizer(), pair, instruction="") == ["Q q0 D d0 END"]
    given = PairTemplate((), INSTRUCTED, instruction="i i")
    assert encoded(tokenizer(given), pair) == ["I i i Q q0 D d0 END"]
    assert encoded(tokenizer(given), pair, instruction="i") == ["I i Q q0 D d0 END"]
    assert encoded(tokenizer(default_prompt="i"), pair) == ["I i Q q0 D d0 END"]
    prompts = {"one": "i", "none": ""}
    assert encoded(tokenizer(prompts=prompts), pair, prompt_name="one") == ["I i Q q0 D d0 END"]
    assert encoded(tokenizer(prompts=prompts, default_prompt="i"), pair, prompt_name="none") == ["Q q0 D d0 END"]


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        (("q0", "d0 " * 40), {"truncate": False}, "must have less than 16 tokens. Given: 44"),
        (("q0", "d0"), {"instruction": "i " * 20}, "have no room"),
        (("q0", "d0"), {"prompt_name": "other"}, "no prompts were found"),
    ],
)
def test_what_can_not_be_run(pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoded(tokenizer(), pair, **options)


def test_white_space_is_stripped_where_the_template_does() -> None:
    template = PairTemplate((("Q", Slot.QUERY, "D", Slot.DOCUMENT),), stripped=frozenset([Slot.QUERY]))
    vocabulary = {"[UNK]": 0, "QxD": 1, "y": 2}
    made = Tokenizer(words(vocabulary), TextOptions(max_input_length=8, vocabulary=3, template=template))
    (found,) = made.encode([(" x\n", " y")], EncodeOptions())
    assert isinstance(found, Encoding)
    np.testing.assert_array_equal(found.input_ids, [1, 2])


def test_characters_are_those_of_the_pair() -> None:
    (found,) = tokenizer().encode([("q0", "d0 d1")], EncodeOptions(instruction="i"))
    assert isinstance(found, Encoding)
    assert found.characters == 7
