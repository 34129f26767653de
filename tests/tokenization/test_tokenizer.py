"""Encoding against the reference ids of the fixtures, and every limit and error in TEI's words and order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixture_tokenizers import MODELS, load, read, words

from text_embeddings_inference.errors import CheckpointError, EmptyInputError, InputError, RequestError, TokenizerError
from text_embeddings_inference.tokenization import TextOptions, Tokenizer, resolve_default_prompt
from text_embeddings_inference.types import EncodeOptions, Encoding, Input

NAMES = sorted(path.parent.name for path in MODELS.glob("*/tokenizer.json"))
STRICT = EncodeOptions(truncate=False)
PROMPTS = {"query": "query: ", "passage": "passage: "}


def encode(tokenizer: Tokenizer, item: Input, options: EncodeOptions | None = None) -> Encoding:
    [encoding] = tokenizer.encode([item], options or EncodeOptions())
    assert isinstance(encoding, Encoding), encoding
    return encoding


def ids(tokenizer: Tokenizer, item: Input, options: EncodeOptions | None = None) -> list[int]:
    found: list[int] = encode(tokenizer, item, options).input_ids.tolist()
    return found


def error(tokenizer: Tokenizer, item: Input, options: EncodeOptions = STRICT) -> RequestError:
    [problem] = tokenizer.encode([item], options)
    assert isinstance(problem, RequestError), problem
    return problem


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_reference(name: str) -> None:
    tokenizer = load(name)
    expected = read(MODELS / name / "expected.json")
    cases = [(case["text"], None, case) for case in expected["texts"]]
    cases += [((case["text"], case["text_pair"]), None, case) for case in expected.get("pairs", [])]
    cases += [(case["text"], case["prompt_name"], case) for case in expected.get("prompt_cases", [])]
    for item, prompt_name, case in cases:
        encoding = encode(tokenizer, item, EncodeOptions(prompt_name=prompt_name))
        assert encoding.input_ids.tolist() == case["input_ids"]
        type_ids = [0] * len(encoding) if encoding.type_ids is None else encoding.type_ids.tolist()
        assert type_ids == case["token_type_ids"]
        assert encoding.characters == (len(item) if isinstance(item, str) else sum(map(len, item)))


def test_one_batch_of_texts_and_pairs_and_ids() -> None:
    tokenizer = load("bert-reranker")
    inputs: list[Input] = ["What is Deep Learning?", ("a", "b"), [2, 5, 3]]
    results = tokenizer.encode(inputs, EncodeOptions())
    assert [encode(tokenizer, item).input_ids.tolist() for item in inputs] == [
        result.input_ids.tolist() for result in results if isinstance(result, Encoding)
    ]
    text, pair, given = results
    assert isinstance(text, Encoding)
    assert isinstance(pair, Encoding)
    assert isinstance(given, Encoding)
    assert text.type_ids is None
    assert pair.type_ids is not None
    assert pair.type_ids.tolist() == [0, 0, 0, 1, 1]
    assert {array.dtype for array in (text.input_ids, pair.type_ids, given.input_ids)} == {np.dtype(np.int32)}


# Prompts


def test_named_prompt_replaces_the_default() -> None:
    tokenizer = load(prompts=PROMPTS, default_prompt="passage: ")
    plain = load()
    assert ids(tokenizer, "hello") == ids(plain, "passage: hello")
    assert ids(tokenizer, "hello", EncodeOptions(prompt_name="query")) == ids(plain, "query: hello")
    assert encode(tokenizer, "hello").characters == 5


def test_unknown_prompt() -> None:
    none, some = load(prompts=None), load(prompts=PROMPTS)
    options = EncodeOptions(prompt_name="nope")
    without = (
        "`default-prompt-name` is set to `nope` but no prompts were found in the Sentence Transformers configuration"
    )
    among = (
        "`default-prompt-name` is set to `nope` but it was not found in the Sentence Transformers prompts. "
        'Available prompts: ["query", "passage"]'
    )
    assert str(error(none, "a", options)) == f"Input validation error: {without}"
    assert str(error(some, "a", options)) == f"Input validation error: {among}"
    assert str(error(load(prompts={}), "a", options)).endswith("Available prompts: []")
    with pytest.raises(CheckpointError) as raised:
        resolve_default_prompt(None, "nope")
    assert str(raised.value) == without
    with pytest.raises(CheckpointError) as raised:
        resolve_default_prompt(PROMPTS, "nope")
    assert str(raised.value) == among


def test_known_default_prompt() -> None:
    assert resolve_default_prompt(PROMPTS, "query") == "query: "


def test_pair_with_a_prompt() -> None:
    tokenizer = load("bert-reranker", default_prompt="query: ")
    problem = error(tokenizer, ("a", "b"))
    assert isinstance(problem, InputError)
    assert str(problem) == "Input validation error: `prompt_name` cannot be set with dual inputs"


# Limits


@pytest.mark.parametrize("item", ["", ("", ""), []])
def test_empty_input(item: Input) -> None:
    problem = error(load(), item)
    assert isinstance(problem, EmptyInputError)
    assert str(problem) == "Input validation error: `inputs` cannot be empty"


@pytest.mark.parametrize("item", [("a", ""), ("", "a")])
def test_pair_with_one_empty_part(item: Input) -> None:
    assert len(encode(load(), item, STRICT)) == 4


def test_token_limit() -> None:
    tokenizer = load(max_input_length=8)
    assert len(encode(tokenizer, "a b c a b c", STRICT)) == 8
    problem = error(tokenizer, "a b c a b c a")
    assert isinstance(problem, InputError)
    assert str(problem) == "Input validation error: `inputs` must have less than 8 tokens. Given: 9"
    assert ids(tokenizer, "a b c a b c a") == ids(tokenizer, "a b c a b c")
    assert ids(tokenizer, "a b c a b c a", EncodeOptions(direction="left")) == ids(tokenizer, "b c a b c a")


def test_pair_without_room_for_its_special_tokens() -> None:
    tokenizer = load("roberta", max_input_length=3)
    assert str(error(tokenizer, ("a", "b"), EncodeOptions())).endswith("less than 3 tokens. Given: 6")


def test_character_limit() -> None:
    tokenizer = load(max_input_length=4)
    within: list[Input] = ["é " * 500, ("é " * 250, "b " * 250), [5] * 1000]
    for item in within:
        assert "tokens. Given" in str(error(tokenizer, item))
    over: list[Input] = ["é " * 500 + "é", ("é " * 250, "b " * 250 + "b"), [5] * 1001]
    for item in over:
        problem = error(tokenizer, item)
        assert isinstance(problem, InputError)
        assert str(problem) == "Input validation error: `inputs` must have less than 1000 characters. Given: 1001"
        assert len(encode(tokenizer, item)) == 4


def test_text_over_the_character_limit_is_cut_to_so_many_bytes() -> None:
    tokenizer = load(max_input_length=4)
    left = EncodeOptions(direction="left")
    text = "a " * 499 + "bc" + "d " * 500  # byte 1000 lies after "bc"
    assert ids(tokenizer, text, left) == ids(tokenizer, "a bc", left)
    assert encode(tokenizer, text, left).characters == 2000
    inside = "a " * 499 + "bé" + "d " * 500  # byte 1000 lies within "é": nothing is cut
    assert ids(tokenizer, inside, left) == ids(tokenizer, "d d", left)
    pair = ("a " * 249 + "bc" + "d " * 500, "x")
    assert ids(tokenizer, pair, left)[1] == ids(tokenizer, "bc")[-2]


def test_order_of_the_checks() -> None:
    tokenizer = load(max_input_length=4, prompts=PROMPTS)
    unknown = EncodeOptions(truncate=False, prompt_name="nope")
    known = EncodeOptions(truncate=False, prompt_name="query")
    assert isinstance(error(tokenizer, "", unknown), EmptyInputError)
    assert "nope" in str(error(tokenizer, "a" * 1001, unknown))
    assert "characters" in str(error(tokenizer, ("a" * 1000, "b"), known))
    assert "dual inputs" in str(error(tokenizer, ("a " * 100, "b"), known))
    assert "tokens" in str(error(tokenizer, "a " * 100, known))


def test_errors_stand_in_the_place_of_their_input() -> None:
    tokenizer = load(max_input_length=8)
    results = tokenizer.encode(["a", "", "b", "a " * 9, "\ud800", [5, 900], "c"], STRICT)
    assert [type(result) for result in results] == [
        Encoding,
        EmptyInputError,
        Encoding,
        InputError,
        InputError,
        InputError,
        Encoding,
    ]
    alone = [ids(tokenizer, text) for text in "abc"]
    assert [result.input_ids.tolist() for result in results if isinstance(result, Encoding)] == alone


def test_lone_surrogate() -> None:
    tokenizer = load()
    for item in ("a\ud800b", ("a", "\udfff")):
        assert str(error(tokenizer, item)) == (
            "Input validation error: `inputs` holds a lone surrogate, which no text has"
        )
    [problem] = tokenizer.tokenize(["\ud800"])
    assert isinstance(problem, InputError)
    assert isinstance(error(load(max_input_length=4), "\ud800" * 2000, EncodeOptions()), InputError)


def test_no_tokens() -> None:
    tokenizer = Tokenizer(words({"[UNK]": 0}), TextOptions(max_input_length=4, vocabulary=1))
    problem = error(tokenizer, " \t\n ")
    assert isinstance(problem, InputError)
    assert "`inputs` has no tokens" in str(problem)
    assert tokenizer.tokenize([" "]) == [[]]


def test_text_the_library_fails_on() -> None:
    tokenizer = Tokenizer(words({"a": 0}, unknown="<none>"), TextOptions(max_input_length=4, vocabulary=1))
    good, bad = tokenizer.encode(["a", "b"], EncodeOptions())
    assert isinstance(good, Encoding)
    assert isinstance(bad, TokenizerError)
    assert str(bad) == "tokenizer error WordLevel error: Missing [UNK] token from the vocabulary"


def test_token_without_a_row_in_the_embedding_table() -> None:
    tokenizer = Tokenizer(words({"[UNK]": 0, "a": 1, "b": 2}), TextOptions(max_input_length=4, vocabulary=2))
    good, bad = tokenizer.encode(["a", "a b"], EncodeOptions())
    assert isinstance(good, Encoding)
    assert str(bad) == ("Input validation error: the text has token id 2, which is outside the vocabulary of 2 ids")


# Token ids


def test_token_ids_are_run_as_they_are() -> None:
    encoding = encode(load(), [899, 5, 0], STRICT)
    assert encoding.input_ids.tolist() == [899, 5, 0]
    assert encoding.type_ids is None
    assert encoding.characters == 3


@pytest.mark.parametrize("outside", [900, -1, 2**40])
def test_token_id_outside_the_vocabulary(outside: int) -> None:
    problem = error(load(), [5, outside])
    assert isinstance(problem, InputError)
    assert str(problem) == f"Input validation error: token id {outside} is outside the vocabulary of 900 ids"


def test_too_many_token_ids() -> None:
    tokenizer = load(max_input_length=4)
    given = [2, 10, 11, 12, 13, 3]
    assert ids(tokenizer, given) == [2, 10, 11, 12]
    assert ids(tokenizer, given, EncodeOptions(direction="left")) == [11, 12, 13, 3]
    assert encode(tokenizer, given).characters == 6
    assert str(error(tokenizer, given)) == "Input validation error: `inputs` must have less than 4 tokens. Given: 6"


def test_token_ids_with_a_prompt_are_decoded() -> None:
    tokenizer = load(default_prompt="query: ")
    given = ids(load(), "deep learning")
    assert given[0] == 2
    assert ids(tokenizer, given) == ids(load(), "query: deep learning")
    assert encode(tokenizer, given).characters == len(given)


# Threads


def test_threads_share_a_tokenizer() -> None:
    tokenizer = load(max_input_length=8)
    every = [EncodeOptions(), EncodeOptions(direction="left"), STRICT] * 20
    text = "What is Deep Learning and why is it so deep"
    alone = {options: str(tokenizer.encode([text], options)) for options in every}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda options: str(tokenizer.encode([text], options)), every))
    assert together == [alone[options] for options in every]
    assert len(set(together)) == 3


@pytest.mark.parametrize(
    ("inputs", "long"),
    [
        (["What is Deep Learning?"], False),
        (["a" * 1001], True),
        ([("a" * 500, "b" * 500)], True),
        (["深" * 250], True),
        (["a"] * 40, True),
        ([[5] * 8000], False),
        ([[5] * 100_000], True),
        ([[5] * 8000] * 2, True),
    ],
    ids=str,
)
def test_is_long(inputs: list[Input], long: bool) -> None:
    assert load().is_long(inputs) == long


def test_token_ids_that_become_text_take_longer() -> None:
    assert not load().is_long([[5] * 100])
    assert load().is_long([[5] * 100], EncodeOptions(prompt_name="query"))
    assert load(default_prompt="query: ").is_long([[5] * 100])
