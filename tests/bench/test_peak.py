"""Loops on registers alone: what the machine multiplies and adds at most."""

from __future__ import annotations

import ctypes
import json
import platform
import time
from pathlib import Path

import pytest

from bench.load import peak
from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native.build import LEVELS, find_compiler

EMULATED = Path(__file__).parents[1] / "native" / "levels" / "emulated.h"
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the loops are for x86-64")


@needs_compiler
def test_peak_is_that_of_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "LOOPS", 20_000)
    with peak.peaks(2) as peaks:
        assert peaks is not None
        rates = {
            dtype: max(peaks.operations_per_second(dtype, 1, time.process_time) or 0 for _ in range(20))
            for dtype in ("float32", "int16", "int8")
        }
        if "avx2" not in cpu_flags():
            assert not any(rates.values())
            return
        assert rates["float32"] > 1e9
        if not cpu_flags() & {"amx_int8"}:
            assert rates["int8"] > 1.5 * rates["float32"]
        assert peaks.operations_per_second("float32", 2, time.perf_counter)
        assert peaks.operations_per_second("float64", 1, time.process_time) is None


@needs_x86
@needs_compiler
@pytest.mark.parametrize("level", [level for level in LEVELS["x86_64"] if level != "plain"])
def test_loops_compile_for_each_level(level: str, tmp_path: Path) -> None:
    compiler = find_compiler()
    assert compiler is not None
    assert peak.compile_loops(tmp_path / "peak.so", compiler, ["-Wall", "-Wextra", "-Werror", *LEVELS["x86_64"][level]])


@needs_x86
@needs_compiler
@pytest.mark.skipif("avx2" not in cpu_flags(), reason="this CPU has no AVX2")
def test_loops_on_tiles_in_emulation(tmp_path: Path) -> None:
    compiler, out = find_compiler(), tmp_path / "peak.so"
    assert compiler is not None
    units = [f"-D__AMX_{unit}__=1" for unit in ("TILE", "BF16", "INT8")]
    flags = [*LEVELS["x86_64"]["avx2"], *units, "-include", str(EMULATED), "-lm"]
    assert peak.compile_loops(out, compiler, flags)
    library = ctypes.CDLL(str(out))
    for name, numbers_per_lane in (("bfloat16", 2), ("int8", 4)):
        loop = getattr(library, f"peak_{name}")
        loop.restype, loop.argtypes = ctypes.c_double, [ctypes.c_long]
        # Four products of tiles with 16 rows, of 16 lanes each: a tile that is misused would end the process.
        assert loop(3) == 3 * 4 * 2 * 16**3 * numbers_per_lane


def test_operations_of_a_model(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # MiniLM: 10.6 million weights, each multiplied and added for each token; attention: 4 * 6 * 384 * 128.
    assert peak.operations_of(tmp_path, [128]) == 128 * (2 * 10_616_832 + 1_179_648)
    assert peak.operations_of(tmp_path, [128, 128]) == 256 * (2 * 10_616_832 + 1_179_648)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "modernbert"}))
    assert peak.operations_of(tmp_path, [128]) is None
