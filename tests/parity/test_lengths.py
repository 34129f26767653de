"""No engine computes with positions that a model does not have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines import ENGINES, Models, fixture, make
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
