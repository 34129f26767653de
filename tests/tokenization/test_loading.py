"""What `Tokenizer.load` makes of a `tokenizer.json`, and how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from fixture_tokenizers import MODELS, load, words

from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.tokenization import Tokenizer
from text_embeddings_inference.types import EncodeOptions, Encoding, Input


def load_file(file: Path, **changes: Any) -> Tokenizer:
    arguments: dict[str, Any] = {
        "max_input_length": 16,
        "prompts": None,
        "default_prompt": None,
        "vocabulary": 900,
        "model_type": "bert",
        "auto_map": None,
    }
    return Tokenizer.load(file, **(arguments | changes))


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


@pytest.mark.parametrize("auto_map", [None, {}, {"AutoModel": "modeling_qwen.Qwen2Model"}])
def test_qwen2_remote_code_ends_texts(tmp_path: Path, auto_map: dict[str, str] | None) -> None:
    file = tmp_path / "tokenizer.json"
    words({"[UNK]": 0, "a": 1, "b": 2, "<|endoftext|>": 3}).save(str(file))
    tokenizer = load_file(file, max_input_length=4, model_type="qwen2", auto_map=auto_map)
    end = [3] if auto_map else []
    assert ids(tokenizer, "a b") == [1, 2, *end]
    assert ids(tokenizer, "a b a b a") == [1, 2, 1, 3 if auto_map else 2]
    pair = encode(tokenizer, ("a", "b"))
    assert pair.input_ids.tolist() == [1, *end, 2, *end]
    type_ids = None if pair.type_ids is None else pair.type_ids.tolist()
    assert type_ids == ([0, 0, 1, 1] if auto_map else None)


def test_qwen2_remote_code_without_the_token(tmp_path: Path) -> None:
    words({"[UNK]": 0}).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has no token <\|endoftext\|>"):
        load_file(tmp_path / "tokenizer.json", model_type="qwen2", auto_map={"AutoModel": "modeling_qwen.Qwen2Model"})
