"""`close` gives back an engine's memory, measured from outside of Python: in a process of its own, as the system counts
it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extras import needs_torch
from native.kernels import needs_kernels
from wide import write_wide

MB = 1_000_000
WIDTH, LAYERS = 384, 8
"""Of a model large enough to be told from the noise of an allocator: 57 MB of weights, 14 in 8 bits."""

MEASURE = """
import ctypes, gc, sys
from pathlib import Path
import numpy as np
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.engines.base import Need, Offer
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Encoding
{make}
def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(next(l.split()[1] for l in Path("/proc/self/status").open() if l.startswith("RssAnon"))) * 1024
def life():
    settings = Settings.of(model_id=sys.argv[1], no_compile_cache=True)
    engine = make(Need(open_checkpoint(Path(sys.argv[1]), facts_of), settings))
    for cores in (None, 1):
        engine.run(engine.arrange([Encoding(np.ones(20, np.int32), None, 0)] * 4), tokens=True, cores=cores)
    engine.prepare(engine.capacity.streams)
    loaded = resident()
    engine.close()
    engine.close()  # which does no harm
    return engine, loaded  # somebody may still hold what is closed
life()  # what the libraries keep for the process
before = resident()
engines = [life() for _ in range(2)]
print("MEMORY", before, *(loaded for _, loaded in engines), resident())
"""
OPENVINO = """
from text_embeddings_inference.engines.openvino import OpenVINOEngine
def make(need):
    return OpenVINOEngine(need, Offer("openvino", {dtype!r}, threads=2, streams=2))
"""
NATIVE = """
from text_embeddings_inference.engines.native import NativeEngine
from text_embeddings_inference.native.kernels import find_kernels
def make(need):
    return NativeEngine(need, Offer("native", {dtype!r}, threads=2, streams=2), find_kernels())
"""
TORCH = """
from text_embeddings_inference.engines.torch import TorchEngine
def make(need):
    return TorchEngine(need, Offer("torch", "bfloat16", threads=1, streams=1))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    write_wide(folder, WIDTH, LAYERS)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory the process has")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(OPENVINO.format(dtype="float32"), id="openvino"),
        pytest.param(OPENVINO.format(dtype="int8"), id="openvino int8"),
        pytest.param(NATIVE.format(dtype="float32"), id="native", marks=needs_kernels),
        pytest.param(TORCH, id="torch", marks=needs_torch),
    ],
)
def test_close_gives_back_the_memory(make: str, checkpoint: Path) -> None:
    command = [sys.executable, "-c", MEASURE.format(make=make), str(checkpoint)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    before, loaded, again, after = map(int, done.stdout.rpartition("MEMORY")[2].split())
    assert loaded - before > 12 * MB, "or the test could not see what is kept"
    assert again - loaded < 10 * MB, "of the first, which is closed"
    assert after - before < 14 * MB, "of both: in 8 bits each has as much"
