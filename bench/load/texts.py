"""Texts of known length in tokens, the same on every run, and the requests made of them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

SHORT_1 = "16 tokens, 1 connection"
SHORT_32 = "16 tokens, 32 connections"
EQUAL = "128 tokens, 32 connections"
BATCHES = "32 x 128 tokens, 2 connections"
RAGGED_64 = "ragged, 64 connections"
RAGGED_8 = "ragged, 8 connections"
LONG_1 = "512 tokens, 1 connection"
LONG_32 = "512 tokens, 32 connections"
RAGGED_32 = "ragged, 32 connections"


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of traffic: `connections` clients, each sending its next request when it has the last one's answer.

    bodies: JSON documents for /embed; tokens: of each body, special tokens included.
    """

    name: str
    connections: int
    bodies: list[bytes]
    tokens: list[int]


def bodies_of(texts: Sequence[str]) -> bytes:
    """The body of a request to /embed: one text alone, or a list."""
    return json.dumps({"inputs": texts[0] if len(texts) == 1 else list(texts)}).encode()


FIRST = Load("first answer", 1, [bodies_of(["What is deep learning?"])], [7])
"""What a server is asked that has just started: a short text, or its length would be measured."""


class TextMaker:
    """Writes texts that the tokenizer of `model` cuts into exactly as many tokens as asked for.

    Words are drawn from the vocabulary; about one in eight is made of several tokens, as in real text.
    """

    def __init__(self, model: Path, seed: int = 7) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        self._random = random.Random(seed)
        self._words = self._collect_words()

    def texts(self, lengths: Sequence[int]) -> list[str]:
        """One text per length; a length counts special tokens ([CLS], [SEP]) and is at least one more than these."""
        texts = [self._text(length - self._special) for length in lengths]
        found = [len(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]
        wrong = [(length, n) for length, n in zip(lengths, found, strict=True) if length != n]
        if wrong:
            raise ValueError(f"can't write texts of exact length for this tokenizer: wanted, got = {wrong[:5]}")
        return texts

    def _text(self, length: int) -> str:
        words = []
        while length > 0:
            cost = 1 if length < 4 or self._random.random() < 7 / 8 else self._random.choice((2, 3))
            words.append(self._random.choice(self._words[cost]))
            length -= cost
        return " ".join(words)

    def _collect_words(self) -> dict[int, list[str]]:
        """Words by their number of tokens, 1 to 3."""
        vocabulary = sorted(self._tokenizer.get_vocab())
        plain = {token.lstrip("▁Ġ") for token in vocabulary if not token.startswith("##")}
        plain = {word for word in plain if word.isascii() and word.isalpha() and word.islower() and len(word) > 2}
        singles = sorted(plain)
        compounds = [a + b for a, b in zip(singles[::2], self._random.sample(singles, len(singles) // 2), strict=False)]
        words: dict[int, list[str]] = {1: [], 2: [], 3: []}
        candidates = singles + compounds
        # In the middle of a text, where most words stand.
        encodings = self._tokenizer.encode_batch([f"the {word}" for word in candidates], add_special_tokens=False)
        the = len(self._tokenizer.encode("the", add_special_tokens=False).ids)
        for word, encoding in zip(candidates, encodings, strict=True):
            cost = len(encoding.ids) - the
            if cost in words:
                words[cost].append(word)
        return words


def ragged_lengths(count: int, mean: float = 60, longest: int = 256, sigma: float = 0.8, seed: int = 7) -> list[int]:
    """Lengths in tokens as in a collection of real passages: log-normal, most short, some long."""
    normal = np.random.default_rng(seed).lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return [int(length) for length in np.clip(np.rint(normal), 4, longest)]


def minilm_loads(maker: TextMaker) -> list[Load]:
    """The loads of the small model."""
    short, medium, many = ([16] * 2000, [128] * 2000, [128] * 2048)
    ragged = ragged_lengths(4000)
    short_texts, medium_texts, many_texts, ragged_texts = (
        maker.texts(lengths) for lengths in (short, medium, many, ragged)
    )
    one = [bodies_of([text]) for text in short_texts]
    mixed = [bodies_of([text]) for text in ragged_texts]
    batches = [bodies_of(many_texts[i : i + 32]) for i in range(0, len(many_texts), 32)]
    return [
        Load(SHORT_1, 1, one, short),
        Load(SHORT_32, 32, one, short),
        Load(EQUAL, 32, [bodies_of([text]) for text in medium_texts], medium),
        Load(BATCHES, 2, batches, [32 * 128] * len(batches)),
        Load(RAGGED_64, 64, mixed, ragged),
        Load(RAGGED_8, 8, mixed, ragged),
    ]


def base_loads(maker: TextMaker) -> list[Load]:
    """The loads of the BERT-base shape."""
    long, ragged = [512] * 200, ragged_lengths(4000)
    long_texts, ragged_texts = maker.texts(long), maker.texts(ragged)
    bodies = [bodies_of([text]) for text in long_texts]
    return [
        Load(LONG_1, 1, bodies, long),
        Load(LONG_32, 32, bodies, long),
        Load(RAGGED_32, 32, [bodies_of([text]) for text in ragged_texts], ragged),
    ]
