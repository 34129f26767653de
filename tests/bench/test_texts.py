"""The texts of the bench have the lengths they claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench.load import texts

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "fixtures" / "models" / "bert"


def test_texts_have_exact_lengths() -> None:
    lengths = [3, 4, 5, 16, 60, 128] * 20
    made = texts.TextMaker(MODEL).texts(lengths)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert [len(encoding.ids) for encoding in tokenizer.encode_batch(made)] == lengths
    assert len(set(made[5::6])) == 20


def test_texts_are_the_same_on_every_run() -> None:
    lengths = [16, 60, 128]
    assert texts.TextMaker(MODEL).texts(lengths) == texts.TextMaker(MODEL).texts(lengths)


def test_ragged_lengths() -> None:
    lengths = texts.ragged_lengths(4000)
    assert sum(lengths) / 4000 == pytest.approx(60, abs=3)
    assert min(lengths) >= 4
    assert max(lengths) == 256
    assert sorted(lengths)[2000] < 50  # most are short


def test_bodies() -> None:
    assert json.loads(texts.bodies_of(["a"])) == {"inputs": "a"}
    assert json.loads(texts.bodies_of(["a", "b"])) == {"inputs": ["a", "b"]}
