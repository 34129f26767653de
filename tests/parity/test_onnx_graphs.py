"""ONNX graphs of the fixture checkpoints (scripts/onnx_fixtures.py): the outputs of Transformers, in every batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from test_batches import BATCHES, TOLERANCE, make
from test_references import check_case

from engines import Model, difference, fixture
from loaded import make_engine
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.engines.base import Engine
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Pooling

ONNX = Path(__file__).parents[1] / "fixtures" / "onnx"
GRAPHS = sorted(path.name for path in ONNX.iterdir())


@cache
def engine(name: str, pooling: Pooling | None = None) -> Engine:
    splade = Pooling.SPLADE if fixture(name).task == "splade" else None
    checkpoint = open_checkpoint(ONNX / name, facts_of, pooling=pooling or splade)
    assert checkpoint.onnx is not None
    return make_engine(checkpoint)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    for name in GRAPHS:
        engine(name).close()


def model(name: str) -> Model:
    return Model(engine(name), gives_tokens=fixture(name).task == "embedding")


def test_graphs_cover_what_differs() -> None:
    assert {fixture(name).task for name in GRAPHS} == {"embedding", "classification", "splade"}


@pytest.mark.parametrize("name", GRAPHS)
def test_one_by_one_and_in_one_batch(name: str) -> None:
    cases, columns = fixture(name).cases, fixture(name).open().columns
    rows = model(name).run([case.encoding for case in cases])
    for case, row in zip(cases, rows, strict=True):
        check_case(row, case, columns)
        check_case(*model(name).run([case.encoding]), case, columns)


@pytest.mark.parametrize("name", GRAPHS)
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    lengths = sorted({length for batch in BATCHES.values() for length in batch})
    single = {length: model(name).run([make(name, length)])[0] for length in lengths}
    for shape, batch in BATCHES.items():
        rows = model(name).run([make(name, length) for length in batch])
        for length, row in zip(batch, rows, strict=True):
            found = difference(row, single[length])
            assert found <= TOLERANCE, f"{shape}: the row of {length} tokens differs by {found:.2g}"


@pytest.mark.parametrize("name", [name for name in GRAPHS if fixture(name).task == "embedding"])
def test_another_pooling(name: str) -> None:
    other = make_engine(open_checkpoint(ONNX / name, facts_of, pooling=Pooling.LAST_TOKEN))
    rows = Model(other, gives_tokens=True).run([case.encoding for case in fixture(name).cases])
    for row, case in zip(rows, fixture(name).cases, strict=True):
        assert np.abs(row.pooled - case.pooled[Pooling.LAST_TOKEN]).max() <= 1e-4
    other.close()
