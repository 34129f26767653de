"""The real server over an engine that computes nothing: shows what everything but the engine costs.

python -m bench.load.fake_engine --model .venv/models/all-MiniLM-L6-v2 --port 8081

Logs and traces are those of the server, by its environment variables.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from text_embeddings_inference.cli import logs_on_stdout, tracing
from text_embeddings_inference.engines.base import Capacity
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.loading.load import Parts, load_parts
from text_embeddings_inference.loading.open import open_model
from text_embeddings_inference.server.serve import serve
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.telemetry.redaction import NO_SECRETS
from text_embeddings_inference.types import Batch, Encoding, ModelInfo, Output

DIMENSIONS = 384


class FakeEngine:
    """Gives the same vector for every input, at once."""

    dimensions = DIMENSIONS
    cores = 1
    capacity = Capacity(1, 16384)
    trials: tuple[int, ...] = ()

    def __init__(self, info: ModelInfo) -> None:
        self.vocabulary, self.longest = info.vocabulary, info.max_input_length
        self._vector = np.random.default_rng(0).standard_normal(DIMENSIONS, dtype=np.float32)

    def arrange(self, encodings: list[Encoding]) -> Batch:
        return Batch.pad(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return longest * count

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        return Output(np.repeat(self._vector[None], len(batch.lengths), axis=0), None)

    def prepare(self, streams: int) -> None:
        """There is one."""

    def close(self) -> None:
        """There is nothing to give back."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.fake_engine", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model whose tokenizer is used")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    ours = ["--prometheus-port", "0", "--threads", "1"]
    settings = Settings.parse(["--model-id", str(given.model), "--port", str(given.port), *ours], os.environ)
    parts = load_parts(open_model(settings))
    parts.engine.close()
    parts = Parts(replace(parts.info, engine="fake"), parts.tokenizer, FakeEngine(parts.info))
    with logs_on_stdout(settings.telemetry, NO_SECRETS), tracing(settings.telemetry) as tracer:
        model = Model(parts, settings.limits, tracer=tracer)
        serve({"fake": model}, settings)


if __name__ == "__main__":
    main()
