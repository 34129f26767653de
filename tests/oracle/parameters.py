"""Random parameters, to compare layers with their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from text_embeddings_inference.nn.parameters import Parameters, bind
from text_embeddings_inference.ops.spec import Layout

from .numpy_ops import NumpyOps, Sequences

OPS = NumpyOps()


class RandomTensors:
    """Tensors by name, of the given shapes, drawn from a fixed seed."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        rng = np.random.default_rng(0)
        self._arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    def names(self) -> list[str]:
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._arrays[name].shape

    def array(self, name: str) -> NDArray[Any]:
        return self._arrays[name]


def parameters(max_length: int = 1, **shapes: tuple[int, ...]) -> tuple[Parameters, dict[str, NDArray[Any]]]:
    """Parameters of the given shapes (`__` for `.`), and their values by name in float64."""
    tensors = RandomTensors({name.replace("__", "."): shape for name, shape in shapes.items()})
    table: dict[str, str | None] = {name.rpartition(".")[0]: name.rpartition(".")[0] for name in tensors.names()}
    p, _ = bind(tensors, table, {}, (), NumpyOps(max_length))
    return p, {name: tensors.array(name).astype(np.float64) for name in tensors.names()}


def values(*shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(1).standard_normal(shape)


def packed(*lengths: int) -> Layout:
    return Layout(Sequences(lengths, None))


def linear_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}__weight": (outputs, inputs), f"{name}__bias": (outputs,)}


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}__weight": (width,), f"{name}__bias": (width,)}


def attention_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    names = ("query", "key", "value", "output")
    return {key: shape for name in names for key, shape in linear_shapes(prefix + name, width, width).items()}


def apply(x: NDArray[Any], values: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    return np.asarray(x @ values[f"{name}.weight"].T + values[f"{name}.bias"])


def normed(x: NDArray[Any], values: dict[str, NDArray[Any]], name: str, eps: float) -> NDArray[Any]:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return np.asarray(scaled * values[f"{name}.weight"] + values[f"{name}.bias"])
