"""Nothing is read or written past the end of what is given: inputs, results, tables, biases, packed weights.

Each array ends at a page that can't be touched. A process of its own for each level: it would end without a word.
"""

from __future__ import annotations

import ctypes as c
import faulthandler
import subprocess
import sys

import numpy as np
import pytest

from loaded import need_of
from native import running
from native.guard import GuardedPacker, at_the_end
from native.kernels import kernels, levels, needs_kernels
from native.test_random_plans import make
from oracle.expected import FIXTURES, Fixture
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.native import plan
from text_embeddings_inference.native.formats import DTYPES
from text_embeddings_inference.native.library import CBatch, Level
from text_embeddings_inference.ops.native import NativeOps

pytestmark = needs_kernels
SEEDS = range(12)
LENGTHS = (3, 1, 9, 5)


@pytest.mark.parametrize("level", levels())
def test_nothing_is_touched_past_its_end(level: str) -> None:
    code = f"import sys; sys.path.insert(0, 'tests'); from native.test_guard_pages import touch; touch({level!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]


def test_the_page_is_guarded() -> None:
    code = "import sys, ctypes; sys.path.insert(0, 'tests'); from native.guard import *; x = at_the_end(np.zeros(5)); "
    for reads, ends in ((8, True), (9, False)):
        read = f"ctypes.string_at(x.ctypes.data, 4 * 8 + {reads})"
        assert (subprocess.run([sys.executable, "-c", code + read], check=False).returncode == 0) is ends


def touch(name: str) -> None:
    """Runs random plans and all fixtures in guarded memory."""
    faulthandler.enable()
    plan.Packer = GuardedPacker  # type: ignore[misc]
    level = kernels(name)
    dtypes = [dtype for dtype, format_ in DTYPES.items() if level.group(format_) or dtype == "bfloat16"]
    for seed in SEEDS:
        sketch, x, lengths = make(seed)
        print("plan", seed, flush=True)
        for dtype in dtypes:
            running.run(sketch, x, lengths=lengths, level=level, dtype=dtype, place=at_the_end)
    constant = NativeOps.constant
    NativeOps.constant = lambda self, array: constant(self, at_the_end(array))  # type: ignore[method-assign]
    for fixture in FIXTURES:
        for dtype in dtypes:
            print("fixture", fixture, dtype, flush=True)
            run_fixture(Fixture(fixture), level, dtype)


def run_fixture(fixture: Fixture, level: Level, dtype: str) -> None:
    """One batch of the model, with vectors of tokens where there are any, on one thread and on three."""
    checkpoint = fixture.open()
    engine = NativeEngine(need_of(checkpoint, no_compile_cache=True), Offer("native", dtype, 1, 1), level)
    tokens, rows = sum(LENGTHS), engine.plan.table_rows
    ids = at_the_end(np.arange(tokens, dtype=np.int32) % rows["input_ids"])
    types = at_the_end(np.arange(tokens, dtype=np.int32) % rows.get("type_ids", 1))
    starts = at_the_end(np.cumsum([0, *LENGTHS], dtype=np.int32))
    attended = None if checkpoint.late is None else at_the_end(np.array(LENGTHS, np.int32))
    ropes = [at_the_end(np.concatenate([rope.table(n) for n in LENGTHS], 1)) for rope in engine.plan.ropes]
    tables = (c.c_void_p * len(ropes))(*(table.ctypes.data for table in ropes))
    pooled = at_the_end(np.full((len(LENGTHS), engine.dimensions), np.nan, np.float32))
    hidden = at_the_end(np.full((tokens, engine._hidden_width or 0), np.nan, np.float32))
    given = [ids, types, starts, attended]
    addresses = [None if array is None else array.ctypes.data for array in given]
    results = [pooled.ctypes.data, hidden.ctypes.data if hidden.size else None]
    batch = CBatch(tokens, len(LENGTHS), max(LENGTHS), *addresses, c.addressof(tables), *results)
    for threads in (1, 3):
        team = level.library.tei_team_new(threads) if threads > 1 else None
        assert level.library.tei_run(engine._engine, c.byref(batch), team) == 0
        level.library.tei_team_free(team)
        assert np.isfinite(pooled).all()
        assert np.isfinite(hidden).all()
    engine.close()
