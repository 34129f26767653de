"""Truncation against the tokenizers library's own, and heads of long texts against the whole texts."""

from __future__ import annotations

import random
from functools import cache

import pytest
import tokenizers
from fixture_tokenizers import MODELS, words
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from text_embeddings_inference.tokenization import TextOptions, Tokenizer, truncation
from text_embeddings_inference.tokenization.truncation import Direction
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

GAPS = (" ", " ", " ", "  ", "   ", "", "\n", " \t")


def library(name: str) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))


def texts(seed: int, count: int, pieces: int) -> list[str | Pair]:
    """Texts and pairs of up to so many pieces, none of them empty as a whole."""
    chance = random.Random(seed)

    def text() -> str:
        number = chance.choice((3, pieces))
        return "".join(chance.choice(PIECES) + chance.choice(GAPS) for _ in range(chance.randint(0, number)))

    made: list[str | Pair] = [text() if chance.random() < 0.5 else (text(), text()) for _ in range(count)]
    return [item for item in made if item and item != ("", "")]


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("length", [5, 8, 13])
def test_equals_the_library(name: str, length: int, direction: Direction) -> None:
    tokenizer = Tokenizer(library(name), TextOptions(max_input_length=length, vocabulary=1000))
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


@cache
def both(name: str, length: int, direction: Direction) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Our tokenizer, and the library's, which truncates what it has tokenized."""
    whole = library(name)
    whole.enable_truncation(length, direction=direction)
    return Tokenizer(library(name), TextOptions(max_input_length=length, vocabulary=1000)), whole


CUT = ["albert", "bert", "bert-reranker", "camembert", "electra", "mpnet", "roberta", "xlm-roberta"]
"""Fixtures whose tokenizers split at spaces; of all families that do."""


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("name", CUT)
def test_heads_of_many_texts_are_used(name: str, direction: Direction) -> None:
    """Or the next test would compare nothing."""
    whole = library(name)
    if not truncation.splits_at_spaces(whole, direction):
        pytest.skip("an added token takes the spaces after it")
    items = texts(7, 400, 60)
    heads = [truncation.head(item, 12, direction) for item in items]
    used = [
        item
        for head, item in zip(heads, items, strict=True)
        if head is not item and truncation.fills(whole.encode_batch([head])[0], head, item, 12)
    ]
    assert sum(isinstance(item, str) for item in used) > 20
    assert sum(isinstance(item, tuple) for item in used) > 20


WORD = st.tuples(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), st.sampled_from(GAPS)).map("".join)
DENSE = st.sampled_from(["a ", "b ", ", ", "深", "度"])
TEXT = st.one_of(
    st.lists(WORD, max_size=12), st.lists(WORD, min_size=15, max_size=40), st.lists(DENSE, min_size=8, max_size=70)
).map("".join)
"""Short, long, and of more tokens for its length than a head is expected to have."""


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("name", CUT)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(item=st.one_of(TEXT, st.tuples(TEXT, TEXT)), length=st.integers(8, 13))
def test_cutting_before_tokenizing_changes_no_token(
    name: str, direction: Direction, item: str | Pair, length: int
) -> None:
    assume(item and item != ("", ""))
    ours, whole = both(name, length, direction)
    [result] = ours.encode([item], EncodeOptions(direction=direction))
    [expected] = whole.encode_batch([item])
    found = result.input_ids.tolist() if isinstance(result, Encoding) else []
    assert found == expected.ids


def test_head_ends_before_a_space() -> None:
    assert truncation.head("ab " * 10, 2, "right") == "ab ab ab ab"
    assert truncation.head("ab, cd  ef gh", 1, "right") == "ab,"
    assert truncation.head(("q", "ab " * 10), 2, "right") == ("q", "ab ab ab ab")
    assert truncation.head(("ab " * 10, "ab " * 9), 2, "right") == ("ab ab ab ab",) * 2


def test_head_of_the_end_begins_with_all_the_spaces_before_a_word() -> None:
    assert truncation.head("ab " * 10, 2, "left") == " ab ab ab "
    assert truncation.head("ab cd  ef", 1, "left") == "  ef"
    assert truncation.head("ab 深 cd ef", 1, "left") == " ef"


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("item", ["ab " * 4, "a" * 50, "深 " * 50, " " * 50, ("ab " * 4, "b"), ("深 " * 50, "a" * 50)])
def test_no_head(item: str | Pair, direction: Direction) -> None:
    assert truncation.head(item, 2, direction) is item


def test_head_with_too_few_tokens_is_not_used() -> None:
    tokenizer = Tokenizer(library("bert"), TextOptions(max_input_length=5, vocabulary=900))
    text = "a" + " " * 40 + "b b b " + "a " * 40
    assert truncation.head(text, 5, "right") == "a"
    pair = ("a b c", text)
    plain = "a b b b a a a"
    for item, same in ((text, plain), (pair, ("a b c", plain))):
        first, second = tokenizer.encode([item, same], EncodeOptions())
        assert isinstance(first, Encoding)
        assert isinstance(second, Encoding)
        assert first.input_ids.tolist() == second.input_ids.tolist()


@pytest.mark.parametrize(
    ("first", "second", "cut", "length", "used"),
    [
        (1, 3, "second", 6, True),
        (1, 2, "second", 6, False),  # there is room for one more
        (3, 3, "second", 6, False),  # of equal parts another is the longer one than of unequal
        (3, 1, "first", 6, True),
        (3, 3, "first", 6, False),
        (4, 4, "both", 7, True),
        (4, 3, "both", 7, False),
        (3, 3, "both", 6, False),  # the odd token is the longer part's
    ],
)
def test_when_the_head_of_a_pair_is_used(first: int, second: int, cut: str, length: int, used: bool) -> None:
    head = " ".join("a" * first), " ".join("b" * second)
    whole = (head[0] if cut == "second" else head[0] + " a", head[1] if cut == "first" else head[1] + " b")
    assert truncation.fills(library("bert").encode(*head), head, whole, length) == used


def splits(tokenizer: tokenizers.Tokenizer) -> bool:
    right = truncation.splits_at_spaces(tokenizer, "right")
    assert truncation.splits_at_spaces(tokenizer, "left") == right
    return right


def test_an_added_token_that_takes_the_spaces_after_it() -> None:
    greedy = words({"[UNK]": 0})
    greedy.add_tokens([AddedToken("<x>", rstrip=True)])
    assert truncation.splits_at_spaces(greedy, "right")
    assert not truncation.splits_at_spaces(greedy, "left")


def test_what_splits_at_spaces() -> None:
    assert splits(words({"[UNK]": 0}))
    byte_level = words({"[UNK]": 0})
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert splits(byte_level)
    sequence = words({"[UNK]": 0})
    sequence.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    sequence.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    sequence.post_processor = TemplateProcessing(single="$A [UNK]", special_tokens=[("[UNK]", 0)])
    assert splits(sequence)


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
    spread = words({"[UNK]": 0})
    spread.normalizer = normalizers.BertNormalizer()  # puts spaces around Chinese characters
    spread.add_tokens([AddedToken("深度")])
    across = words({"[UNK]": 0})
    across.normalizer = normalizers.Replace("a b", "c")
    pattern = words({"[UNK]": 0})
    pattern.normalizer = normalizers.Replace(Regex(r"a\s"), "c")
    strip = words({"[UNK]": 0})
    strip.normalizer = normalizers.Strip()
    for tokenizer in (metaspace, bare_bytes, late, nothing, added, spread, across, pattern, strip):
        assert not splits(tokenizer)


# --- characters that stand for many -----------------------------------------------------------------------------------


def compatible(normalizer: normalizers.Normalizer) -> Tokenizer:
    """A token for each character, as the normalizer writes it."""
    letters = tokenizers.Tokenizer(models.WordLevel({"x": 0}, unk_token="x"))
    letters.normalizer = normalizer
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return Tokenizer(letters, TextOptions(max_input_length=10, vocabulary=1))


LIGATURES = "\ufdfa" * 2000
"""36,000 characters, written out."""


@pytest.mark.parametrize("normalizer", [normalizers.NFKC(), normalizers.Sequence([normalizers.NFKD()])])
def test_what_is_written_out_is_bounded(normalizer: normalizers.Normalizer) -> None:
    tokenizer = compatible(normalizer)
    (cut,) = tokenizer.encode([LIGATURES], EncodeOptions())
    (refused,) = tokenizer.encode([LIGATURES], EncodeOptions(truncate=False))
    (shown,) = tokenizer.tokenize([LIGATURES])
    assert isinstance(cut, Encoding)
    assert (len(cut), cut.characters) == (10, 2000)
    for error in (refused, shown):
        assert "less than 2500 characters once they are normalized" in str(error)


def test_nothing_is_cut_where_nothing_is_written_out() -> None:
    (shown,) = compatible(normalizers.NFC()).tokenize([LIGATURES])
    assert isinstance(shown, list)
    assert len(shown) == len(LIGATURES)


@pytest.mark.parametrize("text", ["한국어" * 800, "e\u0301ǘ" * 800, "\ufdfa" * 555, "a" * 2499])
def test_letters_are_no_reason_to_cut(text: str) -> None:
    assert truncation.fitting(text, 2500) == len(text)


@pytest.mark.parametrize("text", ["\ufdfa" * 100_000, "ab\ufdfa" * 100_000, "a" * 50_000 + "\ufdfa" * 50_000])
def test_the_part_that_fits_is_written_out_in_few_characters(text: str) -> None:
    size = truncation.fitting(text, 20_000)
    assert 4_000 < size < len(text)
    assert len(normalizers.NFKC().normalize_str(text[:size])) <= 4 * 20_000
