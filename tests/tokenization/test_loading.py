"""What `Tokenizer.load` makes of a `tokenizer.json`, and how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from fixture_tokenizers import MODELS, load, words

from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.tokenization import TextOptions, Tokenizer
from text_embeddings_inference.types import EncodeOptions, Encoding, Input, TextRules


def load_file(file: Path, **changes: Any) -> Tokenizer:
    arguments: dict[str, Any] = {"max_input_length": 16, "vocabulary": 900}
    return Tokenizer.load(file, TextOptions(**(arguments | changes)))


def encode(tokenizer: Tokenizer, item: Input) -> Encoding:
    [encoding] = tokenizer.encode([item], EncodeOptions())
    assert isinstance(encoding, Encoding), encoding
    return encoding


def ids(tokenizer: Tokenizer, item: Input) -> list[int]:
    found: list[int] = encode(tokenizer, item).input_ids.tolist()
    return found


def test_padding_and_truncation_of_the_file_are_dropped(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(MODELS / "bert" / "tokenizer.json"))
    library.enable_padding(length=128)
    library.enable_truncation(3)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_file(tmp_path / "tokenizer.json")
    assert ids(tokenizer, "What is Deep Learning?") == ids(load(), "What is Deep Learning?")


def test_missing_file(tmp_path: Path) -> None:
    problem = "tokenizer.json not found. text-embeddings-inference only supports fast tokenizers"
    with pytest.raises(CheckpointError, match=problem):
        load_file(tmp_path / "tokenizer.json")


def test_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text('{"version": "1.0", "model"')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer: .*line 1"):
        load_file(file)


def test_length_without_room_for_text() -> None:
    with pytest.raises(CheckpointError, match="2 tokens has no room for text beside 2 special tokens"):
        load(max_input_length=2)
    assert len(encode(load(max_input_length=3), "What is Deep Learning?")) == 3


@pytest.mark.parametrize("ending", ["", "<|endoftext|>"])
def test_a_token_at_the_end_of_texts(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "tokenizer.json"
    words({"[UNK]": 0, "a": 1, "b": 2, "<|endoftext|>": 3}).save(str(file))
    tokenizer = load_file(file, max_input_length=4, rules=TextRules(ending=ending))
    end = [3] if ending else []
    assert ids(tokenizer, "a b") == [1, 2, *end]
    assert ids(tokenizer, "a b a b a") == [1, 2, 1, 3 if ending else 2]
    pair = encode(tokenizer, ("a", "b"))
    assert pair.input_ids.tolist() == [1, *end, 2, *end]
    type_ids = None if pair.type_ids is None else pair.type_ids.tolist()
    assert type_ids == ([0, 0, 1, 1] if ending else None)


def test_the_token_at_the_end_is_missing(tmp_path: Path) -> None:
    words({"[UNK]": 0}).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has no token <\|endoftext\|>"):
        load_file(tmp_path / "tokenizer.json", rules=TextRules(ending="<|endoftext|>"))


@pytest.mark.parametrize("name", ["bert", "gemma3_text", "mistral"])
def test_tokens_that_tokenizer_json_adds(name: str, caplog: pytest.LogCaptureFixture) -> None:
    first, last = ("[CLS]", "[SEP]") if name == "bert" else ("<bos>", "<eos>") if "gemma" in name else ("<s>", "</s>")
    load(name, rules=TextRules(first=first, last=last))
    assert not caplog.messages


def test_tokens_that_tokenizer_json_does_not_add(caplog: pytest.LogCaptureFixture) -> None:
    """Texts are run without them, as Transformers runs them."""
    text = "What is Deep Learning?"
    tokenizer = load("bert", rules=TextRules(first="[SEP]", last="[unknown]"))
    assert ids(tokenizer, text) == ids(load("bert"), text)
    assert [message[:63] for message in caplog.messages] == [
        "`add_bos_token` of tokenizer_config.json is true, but with toke",
        "`add_eos_token` of tokenizer_config.json is true, but with toke",
    ]
    assert "end with `[unknown]`" in caplog.text


def test_texts_are_lowered_with_their_prompt() -> None:
    plain, lowered = load("roberta"), load("roberta", rules=TextRules(lowercase=True), prompts={"query": "Query: "})
    assert ids(lowered, "What Is ΑΣ?") == ids(plain, "what is ας?")
    assert ids(lowered, ("What", "IS")) == ids(plain, ("what", "is"))
    [encoding] = lowered.encode(["What"], EncodeOptions(prompt_name="query"))
    assert isinstance(encoding, Encoding)
    assert encoding.input_ids.tolist() == ids(plain, "query: what")


def test_models_without_token_types() -> None:
    given, without = encode(load(), ("a", "b")), encode(load(rules=TextRules(token_types=False)), ("a", "b"))
    assert given.type_ids is not None
    assert without.type_ids is None
    assert without.input_ids.tolist() == given.input_ids.tolist()
