"""How true a reduced number type is: the vectors of built-in texts against those of float32."""

from __future__ import annotations

import numpy as np

from ..engines.base import Engine
from ..tokenization import SidedTokenizer, Tokenizer
from ..types import EncodeOptions, Encoding, Kind

TEXTS = (
    "A man is playing a guitar on the street.",
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy dog.",
    "How do I reset my password?",
    "Deep learning models are trained on large collections of text.",
    "The stock fell by 3.5% after the company published its results on 12 March.",
    "Der Zug nach München hat heute zwanzig Minuten Verspätung.",
    "今日はとても良い天気ですね。",
    "def add(a, b): return a + b",
    "Photosynthesis converts light into chemical energy, which plants store in the bonds of sugars.",
    "ok",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light.",
)


FAITHFUL = 0.98
"""A smaller cosine changes what is found."""
LEAST = {"int16": 0.9999}
"""Of dtypes that promise more, which `auto` may take in place of float32."""


def fidelity(engine: Engine, reference: Engine, tokenizer: Tokenizer | SidedTokenizer, kind: Kind) -> float:
    """The smallest cosine between the two engines' pooled vectors, over `TEXTS`.

    Classifiers and rerankers: the cosine between all their logits for all texts, for a single logit has no direction.
    """
    encodings = [e for e in tokenizer.encode(TEXTS, EncodeOptions()) if isinstance(e, Encoding)]
    ours, theirs = (e.run(e.arrange(encodings)).pooled for e in (engine, reference))
    if kind is not Kind.EMBEDDING:
        ours, theirs = ours.reshape(1, -1), theirs.reshape(1, -1)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float((np.sum(ours * theirs, axis=1) / norms).min())
