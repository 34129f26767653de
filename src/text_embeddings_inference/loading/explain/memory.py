"""How much memory a model takes on the OpenVINO engine: a rule fitted to servers that were measured (docs/log.md)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ...checkpoint import Checkpoint, Preview
from ..open import ELEMENT, EnginePlan, count_matrices

MB = 1_000_000

PROCESS = 150 * MB
"""The interpreter, the server and OpenVINO, without a model."""

ALONE, SIDE_BY_SIDE = (25 * MB, 0.0), (90 * MB, 1.2)
"""What load takes: this much, and a share of the matrices."""


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

    A compiled model keeps its own copy of every matrix; what runs batches side by side keeps another. Tables of
    embeddings stay in the file, and are read into memory as their words come up. Tensors that are not float32 are
    converted first. vocabulary: rows of the table; None: not known, and every weight is taken for a part of a matrix.
    """
    if plan.name != "openvino":
        return None
    weights = sum(file.size for file in files.files if file.name.endswith((".safetensors", ".bin", ".onnx")))
    shapes = {name: checkpoint.weights.shape(name) for name in checkpoint.weights}
    matrices = count_matrices(checkpoint, vocabulary)
    converted = sum(prod(shape) for name, shape in shapes.items() if checkpoint.weights.dtype(name) in ("F16", "BF16"))
    packed = (matrices if shapes else weights // 4) * ELEMENT[plan.dtype]
    tables = max(0, 4 * (sum(map(prod, shapes.values())) - matrices - converted)) if shapes else 0
    started = PROCESS + packed + 4 * converted
    fixed, share = ALONE if plan.streams == 1 else SIDE_BY_SIDE
    loaded = started + tables + fixed + int(share * packed)
    graph = 0 if shapes else weights  # an ONNX file is in memory as a whole while it is compiled
    return Memory(weights, started, loaded, max(loaded, started + graph))
