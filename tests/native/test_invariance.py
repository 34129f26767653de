"""A text's vector is bitwise the same whatever its neighbours, its place in the batch and the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from loaded import need_of
from native.kernels import kernels, levels, needs_kernels
from oracle.expected import FIXTURES, Fixture
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.native.formats import DTYPES
from text_embeddings_inference.types import Encoding

pytestmark = needs_kernels
THREADS = (1, 2, 7)
LENGTHS = (17, 1, 40, 9, 33, 5)


def encodings(fixture: Fixture) -> list[Encoding]:
    ids = np.concatenate([case.encoding.input_ids for case in fixture.cases])
    lengths = [min(length, fixture.max_input_length) for length in LENGTHS]
    return [Encoding(np.resize(np.roll(ids, -length), length).astype(np.int32), None, 0) for length in lengths]


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("level", levels())
def test_rows_are_bitwise_the_same_in_every_batch(level: str, name: str) -> None:
    fixture = Fixture(name)
    wanted = encodings(fixture)
    dtypes = [dtype for dtype, format_ in DTYPES.items() if kernels(level).group(format_)]
    for dtype in dtypes:
        engine = NativeEngine(need_of(fixture.open()), Offer("native", dtype, max(THREADS), 1), kernels(level))
        alone = [engine.run(engine.arrange([encoding]), cores=1).pooled[0] for encoding in wanted]
        for order in ([0, 1, 2, 3, 4, 5], [5, 2, 0, 1, 3, 4], [3, 3, 1], [2] * 9):
            batch = engine.arrange([wanted[i] for i in order])
            for cores in THREADS:
                found = engine.run(batch, cores=cores).pooled
                for place, i in enumerate(order):
                    assert np.array_equal(found[place], alone[i]), f"{dtype}, {cores} threads, text {i} at {place}"
        assert not np.array_equal(alone[0], alone[2]), "all texts have the same vector"
        engine.close()
