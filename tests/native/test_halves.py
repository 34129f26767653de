"""Values that are kept in bfloat16: nothing changes where they would be rounded to it anyway."""

from __future__ import annotations

import numpy as np
import pytest

from loaded import need_of
from native import running
from native.kernels import best_kernels, needs_kernels
from native.test_random_plans import SEEDS, make
from oracle.expected import Fixture
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.native import plan

pytestmark = [
    needs_kernels,
    pytest.mark.skipif("best_kernels().group('bf16') == 0", reason="these kernels do not multiply bfloat16 numbers"),
]


def run(seed: int, dtype: str, threads: int = 1) -> running.Array:
    sketch, x, lengths = make(seed)
    return running.run(sketch, x, lengths=lengths, dtype=dtype, threads=threads).values


@pytest.mark.parametrize("seed", SEEDS)
def test_products_of_halves_are_those_of_rounded_floats(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, shared = run(seed, "bfloat16"), run(seed, "bfloat16", threads=3)
    monkeypatch.setattr(plan, "mark_halves", lambda steps, formats: None)
    assert np.array_equal(kept, shared, equal_nan=True)
    assert np.array_equal(kept, run(seed, "bfloat16"), equal_nan=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_integers_of_halves_are_the_same_on_any_number_of_threads(seed: int) -> None:
    assert np.array_equal(run(seed, "int8"), run(seed, "int8", threads=3), equal_nan=True)


def test_what_a_transformer_keeps_in_halves() -> None:
    engine = NativeEngine(need_of(Fixture("bert").open()), Offer("native", "bfloat16", 1, 1), best_kernels())
    halves = {store.width for store in engine.plan.places.stores if store.half}
    config = Fixture("bert").open().config
    engine.close()
    assert halves == {config["hidden_size"], 3 * config["hidden_size"], config["intermediate_size"]}
