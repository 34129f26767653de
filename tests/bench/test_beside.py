"""Two engines in one process: the same texts in the batches that each is given, and the machine's peak."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.engines import beside
from bench.report.records import MINILM
from fakes import FakeEngine
from text_embeddings_inference.native.build import find_compiler

MODEL = Path(__file__).parents[1] / "fixtures" / "models" / "bert"
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def test_batches_are_those_of_the_scheduler() -> None:
    lengths = [40, 2, 39, 3, 40, 2]
    padded, packed = (
        beside.work_of(FakeEngine(batch_tokens=90, packed=packed, streams=2), lengths) for packed in (False, True)
    )
    assert [batch.lengths.tolist() for batch in padded.batches] == [[40], [2, 2, 3], [39, 40]], "of like length"
    assert [batch.lengths.tolist() for batch in packed.batches] == [[40, 2], [39, 3, 40, 2]], "as they came"
    assert packed.cores == padded.cores == 4, "two batches share the eight cores"
    assert beside.work_of(FakeEngine(streams=2), [16]).cores is None


def test_all_batches_run() -> None:
    for pool in (None, ThreadPoolExecutor(2)):
        engine = FakeEngine(batch_tokens=8, packed=True, streams=2)
        beside.work_of(engine, [8, 8, 8]).run(pool)
        assert len(engine.batches) == 3
        if pool:
            pool.shutdown()


@needs_openvino
@needs_compiler
def test_engines_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "FIRST_ID", 5)
    monkeypatch.setattr(beside, "END_ID", 50)
    monkeypatch.setitem(beside.LOADS, MINILM, {"one": [5], "some": [3, 9, 4]})
    for threads in (1, 2):
        found = beside.measure_beside(MINILM, MODEL, ("float32", "float32"), threads, None, seconds=0)
        assert not isinstance(found, str), found
        assert [(one.load, one.threads) for one in found] == [("one", threads), ("some", threads)]
        for one in found:
            assert len(one.native_ms) == len(one.openvino_ms) == beside.LEAST_ROUNDS
            assert one.ratio > 0
            assert one.share_of_peak is None


@needs_openvino
def test_why_engines_are_not_compared() -> None:
    found = beside.measure_beside(MINILM, MODEL, ("float32", "int16"), 1, None, seconds=0)
    assert isinstance(found, str)
    assert "int16" in found
