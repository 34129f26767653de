"""Processes that end with a model that was never stopped, whatever its threads are doing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BERT = Path(__file__).parents[1] / "fixtures" / "models" / "bert"
PROGRAM = f"""
import asyncio, contextlib
from text_embeddings_inference.errors import RequestError
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.loading.load import load_parts
from text_embeddings_inference.loading.open import open_model
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import EncodeOptions

settings = Settings.of(model_id={str(BERT)!r}, dtype="int8")  # whose likeness to float32 is measured
with open_model(settings) as opened:
    model = Model(load_parts(opened), settings.limits)
"""


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("", id="while it is compiled"),
        pytest.param("model.warm_up('fast')", id="while it is measured"),
        pytest.param("model.warm_up()\nmodel.stop()\nmodel.stop()", id="stopped twice"),
        pytest.param(
            "import os, signal\nmodel.warm_up('fast')\nmodel.runner._changed.acquire()\n"
            "if child := os.fork():\n    model.runner._changed.release()\n    assert os.waitpid(child, 0)[1] == 0\n"
            "else:\n    signal.alarm(30)",
            id="in a child of a fork, whose threads are gone",
        ),
        pytest.param(
            "import threading\nmodel.warm_up()\n"
            "def ask():\n    with contextlib.suppress(RequestError):\n"
            "        asyncio.run(model.embed([f'{n} a b' for n in range(32)], EncodeOptions()))\n"
            "threading.Thread(target=ask, daemon=True).start()",
            id="while it is asked",
        ),
    ],
)
def test_a_model_stops_itself(then: str) -> None:
    command = [sys.executable, "-c", PROGRAM + then]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
