"""What the length of a sequence decides: positions that a model does not have, and those that depend on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engines import ENGINES, Model, Models, difference, fixture, make
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.types import Encoding

TABLES = ["albert", "bert", "bert-splade", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"]
"""Fixtures whose positions are rows of a table."""


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_of_positions_refuses_longer_inputs(engine: str, name: str) -> None:
    checkpoint = fixture(name).open()
    first = checkpoint.facts.first_position
    assert first is not None
    positions = checkpoint.config["max_position_embeddings"] - first
    with pytest.raises(UnsupportedError, match=f"{positions + 1} tokens are longer than the table of {positions}"):
        make(engine, replace(checkpoint, max_input_length=positions + 1))


@pytest.mark.parametrize("name", ["bert", "nomic-bert"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_with_a_longer_sequence_is_not_run(models: Models, engine: str, name: str) -> None:
    longest = fixture(name).max_input_length
    model = models.get(engine, name)
    model.run([Encoding(np.full(longest, 5, np.int32), None, 0)])
    with pytest.raises(ValueError, match=f"a sequence has {longest + 1} tokens, the model takes {longest}"):
        model.run([Encoding(np.full(length, 5, np.int32), None, 0) for length in (3, longest + 1)])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nomic-bert", {"rotary_scaling_factor": 2.0, "max_trained_positions": 16}),
        ("nomic-bert-native", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 16}),
        ("qwen3", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 16}),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_rotations_by_length_are_those_of_a_text_alone(engine: str, name: str, changes: dict[str, Any]) -> None:
    """Dynamic NTK: beyond the trained length of 16, every length has a base of its own."""
    checkpoint = fixture(name).open()
    checkpoint = replace(checkpoint, config=checkpoint.config | changes, max_input_length=60)
    model = Model(make(engine, checkpoint), gives_tokens=True)
    oracle = Model(make("numpy-packed", checkpoint), gives_tokens=True)
    plain = Model(make("numpy-packed", fixture(name).open()), gives_tokens=True)
    rng = np.random.default_rng(2)
    ids = rng.integers(5, 60, 60).astype(np.int32)
    texts = {length: Encoding(ids[:length], None, 0) for length in (1, 9, 16, 17, 40, 60)}
    alone = {length: oracle.run([text])[0] for length, text in texts.items()}
    for batch in ([60, 1, 17, 40, 16], [9, 16, 1], [17], [40, 40], [16, 17]):
        rows = model.run([texts[length] for length in batch])
        for length, row in zip(batch, rows, strict=True):
            assert difference(row, alone[length]) <= 1e-4
    assert difference(plain.run([texts[16]])[0], alone[16]) <= 1e-6
    assert difference(plain.run([texts[40]])[0], alone[40]) > 1e-3
