"""What is known of a network without reading its weights: it is built of shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint, Weights
from ..models.build import Network, build, find_model_file, read_args
from ..ops.spec import Constants, Value
from ..types import Kind, Pooling


def inspect(checkpoint: Checkpoint, ops: Constants | None = None) -> Network | None:
    """The network: all values of config.json and all tensors are checked. None where there are no tensors.

    ops: what keeps its constants, which have shapes and no values; None: nothing does.
    Raises UnsupportedError and CheckpointError as at a start.
    """
    if not len(checkpoint.weights):
        read_args(checkpoint, find_model_file(checkpoint).architecture)
        return None
    if checkpoint.kind is Kind.EMBEDDING and checkpoint.pooling is None:  # which is told already
        checkpoint = replace(checkpoint, pooling=Pooling.MEAN)
    return build(checkpoint, ops or _NoConstants(checkpoint.longest), _Shapes(checkpoint.weights))


class _NoConstants:
    """Stands in for an engine."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def constant(self, array: NDArray[Any]) -> Value:
        return Value(None)


class _Shapes:
    """Stands in for weights: the names, shapes and types are theirs, the values are zeros that take no memory."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def names(self) -> Iterable[str]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(name)

    def array(self, name: str) -> NDArray[Any]:
        self._weights.check_float(name)
        return np.broadcast_to(np.zeros((), np.float32), self.shape(name))
