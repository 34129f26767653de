"""Truncation against the tokenizers library's own, and heads of long texts against the whole texts."""

from __future__ import annotations

import random
from typing import Literal

import pytest
import tokenizers
from fixture_tokenizers import MODELS, words
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from text_embeddings_inference.tokenization import Tokenizer, truncation
from text_embeddings_inference.types import EncodeOptions, Encoding, Input, Pair

PIECES = [
    *(
        "the",
        "quick",
        "deep",
        "learning",
        "naïve",
        "café",
        "深度",
        "学习是机器",
        "unknownwords",
        "don't",
        "'ll",
        "a",
        "b",
    ),
    *("[SEP]", "<s>", "[MASK]", "<mask>", ",", ".", "🤗", "\u0301x", "\u0600", "é\u0301", "ﬁ", "½", "ΑΣ", "привет"),
    *("''", "``", "\t", "\n", "\u2028", "\u3000", "\xa0", "\x00", "a\u0300\u0316", "x²"),
]
"""Words, and characters that are joined, split, dropped or reordered by one normalizer or another."""


def library(name: str) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))


def texts(seed: int, count: int, pieces: int) -> list[str | Pair]:
    """Texts and pairs of up to so many pieces, none of them empty as a whole."""
    chance = random.Random(seed)

    def text() -> str:
        number = chance.choice((3, pieces))
        gaps = (" ", " ", " ", "  ", "   ", "", "\n", " \t")
        return "".join(chance.choice(PIECES) + chance.choice(gaps) for _ in range(chance.randint(0, number)))

    made: list[str | Pair] = [text() if chance.random() < 0.5 else (text(), text()) for _ in range(count)]
    return [item for item in made if item and item != ("", "")]


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("length", [5, 8, 13])
def test_equals_the_library(name: str, length: int, direction: Literal["left", "right"]) -> None:
    tokenizer = Tokenizer(library(name), max_input_length=length, vocabulary=1000)
    reference = library(name)
    reference.enable_truncation(length, direction=direction)
    items = texts(length, 60, 14)
    results = tokenizer.encode(items, EncodeOptions(direction=direction))
    for item, result, expected in zip(items, results, reference.encode_batch(items), strict=True):
        assert isinstance(result, Encoding)
        assert result.input_ids.tolist() == expected.ids, item
        type_ids = [0] * len(result) if result.type_ids is None else result.type_ids.tolist()
        assert type_ids == expected.type_ids


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (2, 9, [2, 8]),
        (9, 2, [8, 2]),
        (5, 5, [5, 5]),
        (5, 6, [5, 5]),
        (6, 6, [5, 5]),
        (20, 30, [5, 5]),
        (0, 30, [0, 10]),
    ],
)
def test_longest_is_cut_first(first: int, second: int, kept: list[int]) -> None:
    assert truncation.longest_first(first, second, 10) == kept


def test_odd_room_leaves_one_more_of_the_longer() -> None:
    assert truncation.longest_first(20, 30, 11) == [5, 6]
    assert truncation.longest_first(30, 20, 11) == [6, 5]
    assert truncation.longest_first(30, 30, 11) == [5, 6]


@pytest.mark.parametrize(
    ("item", "cut"),
    [
        ("abcdef", "abcd"),
        ("abcd", "abcd"),
        ("abcédef", "abcédef"),
        ("abédef", "abé"),
        (("abcd", "a"), ("ab", "a")),
        (("aéd", "éa"), ("aéd", "é")),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4]),
    ],
)
def test_cut_to_four_bytes(item: Input, cut: Input) -> None:
    assert truncation.cut_bytes(item, 4) == cut


# Heads


@pytest.mark.parametrize("name", ["albert", "bert", "mpnet", "roberta", "xlm-roberta"])
def test_head_gives_the_tokens_of_the_whole_text(name: str) -> None:
    length = 12
    tokenizer = Tokenizer(library(name), max_input_length=length, vocabulary=1000)
    whole = library(name)
    assert truncation.splits_at_spaces(whole)
    items = texts(7, 400, 60)
    heads = [truncation.head(item, length) for item in items]
    used = [
        head is not item and truncation.fills(whole.encode_batch([head])[0], length)
        for head, item in zip(heads, items, strict=True)
    ]
    assert sum(used) > 50
    whole.enable_truncation(length)
    results = tokenizer.encode(items, EncodeOptions())
    for item, result, expected in zip(items, results, whole.encode_batch(items), strict=True):
        assert isinstance(result, Encoding)
        assert result.input_ids.tolist() == expected.ids, item


def test_head_ends_before_a_space() -> None:
    assert truncation.head("ab " * 10, 2) == "ab ab ab ab"
    assert truncation.head("ab, cd  ef gh", 1) == "ab,"
    assert truncation.head(("q", "ab " * 10), 2) == ("q", "ab ab ab ab")


@pytest.mark.parametrize(
    "item", ["ab " * 4, "a" * 50, "深 " * 50, " " * 50, ("ab " * 10, "ab " * 10), ("ab " * 10, "b")]
)
def test_no_head(item: str | Pair) -> None:
    assert truncation.head(item, 2) is item


def test_head_with_too_few_tokens_is_not_used() -> None:
    tokenizer = Tokenizer(library("bert"), max_input_length=5, vocabulary=900)
    text = "a" + " " * 40 + "b b b " + "a " * 40
    assert truncation.head(text, 5) == "a"
    pair = ("a b c", text)
    plain = "a b b b a a a"
    for item, same in ((text, plain), (pair, ("a b c", plain))):
        first, second = tokenizer.encode([item, same], EncodeOptions())
        assert isinstance(first, Encoding)
        assert isinstance(second, Encoding)
        assert first.input_ids.tolist() == second.input_ids.tolist()


def test_head_of_a_pair_must_be_the_longer_part() -> None:
    whole = library("bert")
    assert truncation.fills(whole.encode("a", "b b b"), 6)
    assert not truncation.fills(whole.encode("a", "b b"), 6)
    assert not truncation.fills(whole.encode("a a a", "b b b"), 6)


def test_what_splits_at_spaces() -> None:
    assert truncation.splits_at_spaces(words({"[UNK]": 0}))
    byte_level = words({"[UNK]": 0})
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert truncation.splits_at_spaces(byte_level)
    sequence = words({"[UNK]": 0})
    sequence.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    sequence.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    sequence.post_processor = TemplateProcessing(single="$A [UNK]", special_tokens=[("[UNK]", 0)])
    assert truncation.splits_at_spaces(sequence)


def test_what_may_not_split_at_spaces() -> None:
    metaspace = words({"[UNK]": 0})
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    bare_bytes = words({"[UNK]": 0})
    bare_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    late = words({"[UNK]": 0})
    late.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.WhitespaceSplit()])
    nothing = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    added = words({"[UNK]": 0})
    added.add_tokens([AddedToken("New York")])
    across = words({"[UNK]": 0})
    across.normalizer = normalizers.Replace("a b", "c")
    pattern = words({"[UNK]": 0})
    pattern.normalizer = normalizers.Replace(Regex(r"a\s"), "c")
    strip = words({"[UNK]": 0})
    strip.normalizer = normalizers.Strip()
    for tokenizer in (metaspace, bare_bytes, late, nothing, added, across, pattern, strip):
        assert not truncation.splits_at_spaces(tokenizer)
