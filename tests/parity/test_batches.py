"""An embedding does not depend on its neighbours: what a sequence gets alone, it gets in every batch."""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice

import numpy as np
import pytest

from engines import ENGINES, Models, difference, fixture
from oracle.expected import FIXTURES
from text_embeddings_inference.types import Encoding

TOLERANCE = 1e-5
SPLADE_TOLERANCE = 2e-5
"""oneDNN's AVX-512 kernels for PyTorch add up in an order that depends on the number of rows. The logits of these
fixtures reach 40, where float32 is exact to 4e-6, and a weight takes over the error of its logit."""

BATCHES: dict[str, list[int]] = {
    "alone": [17],
    "equal": [17, 17, 17, 17],
    "mixed": [3, 40, 1, 17, 29],
    "shuffled": [29, 1, 17, 3, 40],
    "one token": [1],
    "one token each": [1, 1, 1],
    "one token in the middle": [40, 1, 40],
    "31": [31, 5],
    "32": [32, 5],
    "33": [5, 33],
    "longest": [0, 2, 0],
    "one less than the longest": [-1, 9],
    "many": [5, 1, 9, 2] * 8 + [41],
}
"""Lengths; 0 and -1 stand for the longest that the model takes, and one less."""


@cache
def longest(name: str) -> int:
    """Tokens of the longest sequence that the fixture's engines run."""
    return fixture(name).open().longest


def make(name: str, length: int) -> Encoding:
    """A sequence of the fixture's own token ids, repeated: other ids for each length, and in some of them two types."""
    wanted = fixture(name)
    length = min(length, longest(name)) if length > 0 else wanted.max_input_length + length
    ids = np.concatenate([case.encoding.input_ids for case in wanted.cases])
    input_ids = np.fromiter(islice(cycle(np.roll(ids, -7 * length)), length), np.int32, length)
    typed = wanted.has_type_ids and length > 1 and length % 2 == 1  # beside rows that have no types
    attended = length // 2 + 1 if wanted.is_late and length % 2 == 0 else None
    return Encoding(input_ids, (np.arange(length) >= length // 2).astype(np.int32) if typed else None, 0, attended)


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("engine", ENGINES)
def test_rows_do_not_depend_on_the_batch(models: Models, engine: str, name: str) -> None:
    model = models.get(engine, name)
    tolerance = SPLADE_TOLERANCE if fixture(name).task == "splade" else TOLERANCE
    lengths = sorted({length for batch in BATCHES.values() for length in batch})
    single = {length: model.run([make(name, length)])[0] for length in lengths}
    worst = 0.0
    for shape, batch in BATCHES.items():
        rows = model.run([make(name, length) for length in batch])
        for length, row in zip(batch, rows, strict=True):
            found = difference(row, single[length])
            assert found <= tolerance, f"{shape}: the row of {length} tokens differs by {found:.2g}"
            worst = max(worst, found)
    print(f"\nlargest difference to a single run: {worst:.2g}", end=" ")


def test_rows_of_different_sequences_differ(models: Models) -> None:
    """The comparison above could not fail if all sequences had the same vector."""
    for name in FIXTURES:
        rows = models.get("openvino", name).run([make(name, 17), make(name, 29)])
        assert np.abs(rows[0].pooled - rows[1].pooled).max() > 1e-2
