"""/tokenize and /decode, as TEI 1.9.3 answered for the same checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fixture_tokenizers import load, words
from tokenizers import normalizers

from text_embeddings_inference.errors import EmptyInputError, InputError, RequestError
from text_embeddings_inference.tokenization import TextOptions, Tokenizer
from text_embeddings_inference.tokenization.tokenizer import MOST_IDS


def shown(tokenizer: Tokenizer, text: str, **options: Any) -> list[tuple[int, str, bool, int | None, int | None]]:
    [tokens] = tokenizer.tokenize([text], **options)
    assert not isinstance(tokens, RequestError), tokens
    return [(token.id, token.text, token.special, token.start, token.stop) for token in tokens]


def test_tokens_are_shown_as_typed_with_byte_offsets() -> None:
    assert shown(load("bert-classifier"), "What is Deep Learning?") == [
        (2, "[CLS]", True, None, None),
        (899, "What", False, 0, 4),
        (248, "is", False, 5, 7),
        (720, "Deep", False, 8, 12),
        (602, "Learning", False, 13, 21),
        (103, "?", False, 21, 22),
        (3, "[SEP]", True, None, None),
    ]
    assert shown(load("bert-classifier"), "naïve café — 深", add_special_tokens=False) == [
        (121, "n", False, 0, 1),
        (15, "a", False, 1, 2),
        (559, "ïve", False, 2, 6),
        (754, "ca", False, 7, 9),
        (20, "f", False, 9, 10),
        (19, "é", False, 10, 12),
        (173, "—", False, 13, 16),
        (218, "深", False, 17, 20),
    ]


def test_token_that_is_part_of_a_character_shows_the_character() -> None:
    assert shown(load("roberta-classifier"), "x² 🤗", add_special_tokens=False) == [
        (91, "x", False, 0, 1),
        (130, "²", False, 1, 3),
        (114, "²", False, 1, 3),
        (224, "", False, 4, 4),
        (176, "🤗", False, 4, 8),
        (257, "🤗", False, 4, 8),
        (101, "🤗", False, 4, 8),
        (249, "🤗", False, 4, 8),
    ]


def test_typed_special_token_is_not_special() -> None:
    assert shown(load("roberta-classifier"), "<s> </s>") == [
        (0, "<s>", True, None, None),
        (0, "<s>", False, 0, 3),
        (224, "", False, 4, 4),
        (2, "</s>", False, 4, 8),
        (2, "</s>", True, None, None),
    ]


def test_prompt_is_shown() -> None:
    hello = [(111, "h", False, 7, 8), (149, "el", False, 8, 10), (188, "lo", False, 10, 12)]
    query = [(242, "query", False, 0, 5), (20, ":", False, 5, 6), *hello]
    bare = load("xlm-roberta")
    assert shown(bare, "hello", prompt_name="query", add_special_tokens=False) == query
    default = load("xlm-roberta", default_prompt="query: ")
    assert shown(default, "hello") == [(0, "<s>", True, None, None), *query, (2, "</s>", True, None, None)]


def test_tokenize_knows_no_token_limit_but_one_of_characters() -> None:
    tokenizer = load(max_input_length=4)
    assert len(shown(tokenizer, "a " * 500)) == 502
    results = tokenizer.tokenize(["", "a" * 1001, "a"])
    assert [type(result) for result in results] == [EmptyInputError, InputError, list]
    assert str(results[1]).endswith("must have less than 1000 characters. Given: 1001")
    [unknown] = tokenizer.tokenize(["a"], prompt_name="nope")
    assert "`nope` but no prompts were found" in str(unknown)


def decode(name: str, *batch: list[int], **options: Any) -> Sequence[str | RequestError]:
    return load(name).decode(batch, **options)


def test_decode() -> None:
    given = [*range(5, 25)], [3, 100, 200, 300]
    assert decode("xlm-roberta", *given) == ['se., "" at iscedoa in:pering |', "on resiter"]
    special = "<s><pad></s><unk>!\"#$%&'("
    assert decode("roberta-classifier", [*range(12)], skip_special_tokens=False) == [special]
    assert decode("roberta-classifier", [*range(12)]) == ["!\"#$%&'("]


def test_decode_leaves_unknown_ids_out() -> None:
    assert decode("bert", [999999], [899, 999999, 248]) == ["", "what is"]


def test_decode_errors() -> None:
    empty, negative, good = decode("bert", [], [-1], [899])
    assert isinstance(empty, EmptyInputError)
    assert str(empty) == "Input validation error: `input_ids` cannot be empty"
    assert isinstance(negative, InputError)
    assert good == "what"


def test_more_ids_than_are_decoded_in_little_time_are_refused() -> None:
    at_most, more = decode("bert", [899] * MOST_IDS, [899] * (MOST_IDS + 1))
    assert at_most == " ".join(["what"] * MOST_IDS)
    assert isinstance(more, InputError)
    assert str(more) == f"Input validation error: `input_ids` must have at most {MOST_IDS} token ids"
    [whole] = load("bert", max_input_length=MOST_IDS + 1).decode([[899] * (MOST_IDS + 1)])
    assert isinstance(whole, str)


def test_normalizer_that_changes_lengths_keeps_offsets() -> None:
    library = words({"[UNK]": 0, "fi": 1, "x2": 2})
    library.normalizer = normalizers.NFKC()
    assert shown(Tokenizer(library, TextOptions(max_input_length=16, vocabulary=3)), "ﬁ x²") == [
        (1, "ﬁ", False, 0, 3),
        (2, "x²", False, 4, 7),
    ]
