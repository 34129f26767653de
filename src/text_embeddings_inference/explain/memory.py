"""How much memory a model takes on the OpenVINO engine: a rule fitted to servers that were measured (docs/log.md)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..checkpoint import Checkpoint, Preview
from ..inference.loading import EnginePlan
from ..types import Pooling

MB = 1_000_000

PROCESS = 135 * MB
"""The interpreter, the server and OpenVINO, without a model."""

ELEMENT = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of a number, by what is computed in."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. weights: of the files; started: the process before its first request; loaded: after requests of all
    lengths, many at a time; peak: at its largest, pages of mapped files included."""

    weights: int
    started: int
    loaded: int
    peak: int


def estimate(checkpoint: Checkpoint, vocabulary: int | None, files: Preview, plan: EnginePlan) -> Memory | None:
    """What the process will take; None for an engine that was not measured.

    A compiled model keeps its own copy of every matrix; what runs batches side by side keeps another; and kernels for
    other shapes a part of one. Tables of embeddings stay in the file. Tensors that are not float32 are converted first.
    vocabulary: rows of the table; None: not known, and every weight is taken for a part of a matrix.
    """
    if plan.name != "openvino":
        return None
    weights = sum(file.size for file in files.files if file.name.endswith((".safetensors", ".bin", ".onnx")))
    shapes = {name: checkpoint.weights.shape(name) for name in checkpoint.weights}
    is_tied = checkpoint.pooling is Pooling.SPLADE  # its table is the last matrix, too
    matrices = sum(prod(shape) for shape in shapes.values() if len(shape) > 1 and (is_tied or shape[0] != vocabulary))
    converted = sum(prod(shape) for name, shape in shapes.items() if checkpoint.weights.dtype(name) in ("F16", "BF16"))
    packed = (matrices if shapes else weights // 4) * ELEMENT[plan.dtype]
    started = PROCESS + packed + 4 * converted
    alone, side_by_side = (20 * MB, 0.95), (75 * MB, 2.4)
    fixed, share = alone if plan.streams == 1 else side_by_side
    loaded = started + fixed + int(share * packed)
    compiling = started + weights + (packed if plan.streams > 1 else 0)  # the last form, with the whole file touched
    return Memory(weights, started, loaded, max(loaded, compiling))
