"""How OpenVINO runs a model on this machine's CPUs, and how much memory that takes."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod

from ..checkpoint import Checkpoint
from ..models.build import Network
from ..types import Pooling
from .base import Engine, EngineKind, Memory, Need, Offer, Refusal, refuse_unknown

INSTALL = "pip install 'text-embeddings-inference[openvino]'"
MAX_STREAMS = 8
"""More streams of one model only spread its weights over more caches."""
FEW_THREADS = 2
LARGE_COPY_BYTES = 256_000_000
"""Of weights. On few threads, several streams give a tenth more throughput, for a copy of the weights that is
rearranged for them (docs/log.md): too little for so much memory."""
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""By what OpenVINO computes in."""

MB = 1_000_000
PROCESS_BYTES = 150 * MB
"""The interpreter, the server and OpenVINO, without a model."""
ALONE, SIDE_BY_SIDE = (25 * MB, 0.0), (90 * MB, 1.2)
"""What load takes: so many bytes, and a share of the matrices. Fitted to servers that were measured (docs/log.md)."""


class OpenVINOKind(EngineKind):
    """Our architectures, and ONNX graphs, on CPUs."""

    name = option = "openvino"

    def offer(self, need: Need) -> Offer | Refusal:
        checkpoint, options = need.checkpoint, need.settings.engine
        if checkpoint.onnx is not None and options.dtype == "int8":
            return Refusal(
                f"`--dtype int8`: {checkpoint.onnx.file} is an ONNX graph, which is run as it is",
                "use `--onnx-file` with a quantized graph, if the model has one",
            )
        if checkpoint.onnx is None and (refusal := refuse_unknown(need, " on OpenVINO")):
            return refusal
        if find_spec("openvino") is None:
            return _refuse_missing(need)
        from .openvino import choose_dtype

        dtype = choose_dtype(options.dtype)
        if isinstance(dtype, Refusal):
            return dtype
        matrices = 0 if checkpoint.onnx else count_matrices(checkpoint, checkpoint.config.get("vocab_size"))
        streams = options.streams or choose_streams(options.threads, matrices * NUMBER_BYTES[dtype])
        return Offer(self.name, dtype, options.threads, streams)

    def make(self, need: Need, offer: Offer) -> Engine:
        from .openvino import OpenVINOEngine

        return OpenVINOEngine(need, offer)

    def inspect(self, need: Need) -> Network | None:
        if need.checkpoint.onnx is None:
            return super().inspect(need)
        from .openvino import inspect_graph

        return inspect_graph(need.checkpoint)

    def memory(self, need: Need, offer: Offer, vocabulary: int | None, stored: int) -> Memory | None:
        """A compiled model keeps its own copy of every matrix; what runs batches side by side keeps another. Tables of
        embeddings stay in the file, and are read into memory as their words come up. Tensors that are not float32 are
        converted first. Where the vocabulary is not known, every weight is taken for a part of a matrix.
        """
        weights = need.checkpoint.weights
        shapes = {name: weights.shape(name) for name in weights}
        matrices = count_matrices(need.checkpoint, vocabulary)
        converted = sum(prod(shape) for name, shape in shapes.items() if weights.dtype(name) in ("F16", "BF16"))
        packed = (matrices if shapes else stored // 4) * NUMBER_BYTES[offer.dtype]
        tables = max(0, 4 * (sum(map(prod, shapes.values())) - matrices - converted)) if shapes else 0
        started = PROCESS_BYTES + packed + 4 * converted
        fixed, share = ALONE if offer.streams == 1 else SIDE_BY_SIDE
        loaded = started + tables + fixed + int(share * packed)
        graph = 0 if shapes else stored  # an ONNX file is in memory as a whole while it is compiled
        return Memory(stored, started, loaded, max(loaded, started + graph))


def _refuse_missing(need: Need) -> Refusal:
    """Where OpenVINO is not installed."""
    if need.checkpoint.onnx is not None:
        problem = f"{need.checkpoint.onnx.file} is an ONNX graph, which needs OpenVINO, and that is not installed"
        return Refusal(problem, INSTALL)
    asked = "`--engine openvino`: " if need.settings.engine.engine == OpenVINOKind.option else ""
    return Refusal(f"{asked}OpenVINO is not installed", INSTALL)


def choose_streams(threads: int, copy_bytes: int) -> int:
    """Batches to run side by side. copy_bytes: of the matrices, which several streams hold twice."""
    return 1 if threads <= FEW_THREADS and copy_bytes > LARGE_COPY_BYTES else min(threads, MAX_STREAMS)


def count_matrices(checkpoint: Checkpoint, vocabulary: int | None) -> int:
    """The numbers in a checkpoint's matrices. Tables of embeddings are none, unless they are multiplied with, too.

    vocabulary: rows of the table; None: not known, and it is counted.
    """
    return sum(prod(checkpoint.weights.shape(name)) for name in find_matrices(checkpoint, vocabulary))


def find_matrices(checkpoint: Checkpoint, vocabulary: int | None) -> list[str]:
    """The names of the tensors that `count_matrices` counts."""
    shapes = {name: checkpoint.weights.shape(name) for name in checkpoint.weights}
    is_tied = checkpoint.pooling is Pooling.SPLADE
    return [name for name, shape in shapes.items() if len(shape) > 1 and (is_tied or shape[0] != vocabulary)]
