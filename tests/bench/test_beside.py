"""Two engines in one process: the same texts in the batches that each is given, and the machine's peak."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.engines import beside
from bench.load import peak
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


def test_operations_of_a_model(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # MiniLM: 10.6 million weights, each multiplied and added for each token; attention: 4 * 6 * 384 * 128.
    assert peak.operations_of(tmp_path, [128]) == 128 * (2 * 10_616_832 + 1_179_648)
    assert peak.operations_of(tmp_path, [128, 128]) == 256 * (2 * 10_616_832 + 1_179_648)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "modernbert"}))
    assert peak.operations_of(tmp_path, [128]) is None


@needs_compiler
def test_peak_is_that_of_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "LOOPS", 20_000)
    with peak.peaks(2) as peaks:
        assert peaks is not None
        rates = {
            dtype: max(peaks.operations_per_second(dtype, 1, time.process_time) or 0 for _ in range(20))
            for dtype in ("float32", "int16", "int8")
        }
        if "avx2" not in peak.cpu_flags():
            assert not any(rates.values())
            return
        assert rates["float32"] > 1e9
        if not peak.cpu_flags() & {"amx_int8"}:
            assert rates["int8"] > 1.5 * rates["float32"]
        assert peaks.operations_per_second("float32", 2, time.perf_counter)
        assert peaks.operations_per_second("float64", 1, time.process_time) is None
