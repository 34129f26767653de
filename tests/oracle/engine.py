"""The NumPy operations as an engine: the same models, the same protocol."""

from __future__ import annotations

from typing import Literal

import numpy as np

from text_embeddings_inference.checkpoint import Checkpoint
from text_embeddings_inference.engines.base import Capacity, check_lengths
from text_embeddings_inference.models.build import build
from text_embeddings_inference.ops.spec import Inputs, Layout, Value
from text_embeddings_inference.types import Batch, Encoding, Output

from .numpy_ops import NumpyOps, Sequences


class NumpyEngine:
    """Runs a checkpoint's network on NumPyOps, in float64 (see `engines.base.Engine`)."""

    cores = 1
    capacity = Capacity(1, 1024)
    trials: tuple[int, ...] = ()

    def __init__(self, checkpoint: Checkpoint, layout: Literal["padded", "packed"]) -> None:
        self.longest = checkpoint.longest
        self._ops = NumpyOps(self.longest)
        self._layout = layout
        self._network = build(checkpoint, self._ops)
        self.dimensions = self._network.dimensions
        self.vocabulary = self._network.vocabulary

    def arrange(self, encodings: list[Encoding]) -> Batch:
        check_lengths(encodings, self.longest)
        return Batch.pad(encodings) if self._layout == "padded" else Batch.pack(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return longest * count if self._layout == "padded" else tokens

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        type_ids = np.zeros_like(batch.input_ids) if batch.type_ids is None else batch.type_ids
        inputs = Inputs(Value(batch.input_ids), Value(type_ids), Layout(Sequences.of(batch)))
        results = self._network.run(self._ops, inputs)
        hidden = results.tokens.raw.astype(np.float32) if tokens and results.tokens is not None else None
        return Output(results.pooled.raw.astype(np.float32), hidden)

    def prepare(self, streams: int) -> None:
        """There is one."""

    def close(self) -> None:
        """Nothing to give back."""
