"""The engines under test: each fixture is built once per engine, and a batch's results are given by sequence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from extras import needs_torch
from loaded import make_engine, need_of
from native.kernels import needs_kernels
from oracle.engine import NumpyEngine
from oracle.expected import Fixture
from text_embeddings_inference.checkpoint import Checkpoint
from text_embeddings_inference.engines.base import Engine, Offer
from text_embeddings_inference.engines.registry import KINDS
from text_embeddings_inference.types import Encoding, Float32Array, Pooling

TORCH = [pytest.param(name, marks=needs_torch) for name in ("torch-padded", "torch-packed")]
NATIVE = pytest.param("native", marks=needs_kernels)
OWN_FORMS = ("torch", "transformers", "native")
"""Kinds that are tried in several forms, have models of their own, or are not everywhere."""
ENGINES = [*(kind.name for kind in KINDS if kind.name not in OWN_FORMS), "numpy-padded", "numpy-packed", NATIVE, *TORCH]


@dataclass(frozen=True, slots=True)
class Row:
    """What one sequence got: pooled `[D]`; tokens `[n, D]`, None where the model gives none."""

    pooled: Float32Array
    tokens: Float32Array | None


class Model:
    """A fixture on one engine."""

    def __init__(self, engine: Engine, *, gives_tokens: bool) -> None:
        self._engine = engine
        self._gives_tokens = gives_tokens

    def run(self, encodings: list[Encoding]) -> list[Row]:
        """Runs one batch; checks shapes and types, and that what belongs to a token is finite."""
        batch = self._engine.arrange(encodings)
        output = self._engine.run(batch, tokens=self._gives_tokens)
        assert output.pooled.dtype == np.float32
        assert output.pooled.shape == (len(encodings), self._engine.dimensions)
        assert np.isfinite(output.pooled).all()
        if not self._gives_tokens:
            assert output.tokens is None
            return [Row(pooled, None) for pooled in output.pooled]
        assert output.tokens is not None
        assert output.tokens.dtype == np.float32
        assert output.tokens.shape[:-1] == batch.input_ids.shape
        if batch.is_packed:
            parts = np.split(output.tokens, np.cumsum(batch.lengths)[:-1])
        else:
            parts = [row[:n] for row, n in zip(output.tokens, batch.lengths, strict=True)]
        assert all(np.isfinite(part).all() for part in parts)
        return [Row(pooled, part) for pooled, part in zip(output.pooled, parts, strict=True)]


@cache
def fixture(name: str) -> Fixture:
    return Fixture(name)


class Models:
    """Models by engine, fixture and options, made when they are first asked for."""

    def __init__(self) -> None:
        self._engines: dict[tuple[str, str, Pooling | None, str | None], Engine] = {}

    def get(self, engine: str, name: str, *, pooling: Pooling | None = None, dense_path: str | None = None) -> Model:
        key = (engine, name, pooling, dense_path)
        if key not in self._engines:
            self._engines[key] = make(engine, fixture(name).open(pooling=pooling, dense_path=dense_path))
        return Model(self._engines[key], gives_tokens=fixture(name).task == "embedding")

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


def make(engine: str, checkpoint: Checkpoint) -> Engine:
    match engine:
        case "numpy-padded":
            return NumpyEngine(checkpoint, "padded")
        case "numpy-packed":
            return NumpyEngine(checkpoint, "packed")
    name, *how = engine.split("-")
    return _make_torch(checkpoint, *how) if name == "torch" else make_engine(checkpoint, name, *how)


def _make_torch(checkpoint: Checkpoint, layout: str, dtype: str = "float32") -> Engine:
    from text_embeddings_inference.engines.torch import TorchEngine

    assert layout in ("padded", "packed")
    return TorchEngine(need_of(checkpoint), Offer("torch", dtype, threads=1, streams=1), layout=layout)


def difference(actual: Row, expected: Row) -> float:
    """The largest difference of any value."""
    largest = float(np.abs(actual.pooled - expected.pooled).max())
    if actual.tokens is None or expected.tokens is None:
        assert actual.tokens is expected.tokens
        return largest
    return max(largest, float(np.abs(actual.tokens - expected.tokens).max()))
