"""`close` gives back an engine's memory, measured from outside of Python: in a process of its own, as the system counts
it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from extras import needs_torch
from oracle.expected import MODELS

MB = 1_000_000
WIDTH, LAYERS = 384, 4
"""Of a model large enough to be told from the noise of an allocator: 28 MB of weights."""

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
    engine = make(Need(open_checkpoint(Path(sys.argv[1]), facts_of), Settings.of(model_id=sys.argv[1])))
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
TORCH = """
from text_embeddings_inference.engines.torch import TorchEngine
def make(need):
    return TorchEngine(need, Offer("torch", "bfloat16", threads=1, streams=1))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture `bert`, wider: each of its tensors repeated along the axes that are as long as it is wide."""
    folder = tmp_path_factory.mktemp("wide")
    for name in ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
        (folder / name).write_bytes((MODELS / "bert" / name).read_bytes())
    config = json.loads((MODELS / "bert" / "config.json").read_text())
    wider = {config["hidden_size"]: WIDTH, config["intermediate_size"]: 4 * WIDTH}
    small = load_file(MODELS / "bert" / "model.safetensors")
    rng = np.random.default_rng(1)
    tensors = {}
    for name, tensor in small.items():
        shape = [wider.get(length, length) for length in tensor.shape]
        for layer in range(LAYERS) if ".layer.0." in name else (None,):
            own = name if layer is None else name.replace(".layer.0.", f".layer.{layer}.")
            tensors[own] = (rng.standard_normal(shape) / 50).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory the process has")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(OPENVINO.format(dtype="float32"), id="openvino"),
        pytest.param(OPENVINO.format(dtype="int8"), id="openvino int8"),
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
    assert again - loaded < 6 * MB, "of the first, which is closed"
    assert after - before < 6 * MB
