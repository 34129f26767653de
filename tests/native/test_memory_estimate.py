"""What `--explain` says of the memory of packed weights is what they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaded import need_of
from native.kernels import best_kernels, needs_kernels
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.engines import native_memory
from text_embeddings_inference.engines.base import Offer
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.models.build import facts_of
from wide import write_wide

pytestmark = needs_kernels


@pytest.mark.parametrize("stored", ["F32", "BF16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_packed_weights(dtype: str, stored: str, tmp_path: Path) -> None:
    level = best_kernels()
    if dtype == "int8" and not level.group("i8"):
        pytest.skip("the level has no 8-bit products")
    write_wide(tmp_path / "wide", width=384, layers=4, dtype=stored)
    need = need_of(open_checkpoint(tmp_path / "wide", facts_of), compile_cache=tmp_path)
    offer = Offer("native", dtype, threads=2, streams=2)
    engine = NativeEngine(need, offer, level)
    in_file = (tmp_path / "wide" / "model.safetensors").stat().st_size
    found = native_memory.estimate(need, offer, engine.vocabulary, in_file)
    engine.close()
    [pack] = tmp_path.glob("*.pack")
    most = 0.4 if dtype == "int8" else 0.1  # some products stay in 16 bits
    assert found.started - native_memory.PROCESS_BYTES == pytest.approx(pack.stat().st_size, rel=most)
    assert found.weights == in_file
    assert found.started < found.loaded <= found.peak
    assert found.loaded - found.started > engine.vocabulary * 384 * (4 if stored == "F32" else 2), "the table, too"
