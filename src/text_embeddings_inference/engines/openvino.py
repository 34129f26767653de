"""The CPU engine: a model as an OpenVINO graph, compiled to run one batch on all cores or, under load, several."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint, Weights
from ..errors import StartError
from ..machine import has_vnni
from ..models.build import Network, build
from ..ops.openvino import Float32OpenVINOOps, Int8OpenVINOOps, OpenVINOOps
from ..ops.openvino_layout import PaddedLayout, rotate_by_length
from ..ops.openvino_library import op, ov
from ..ops.spec import Inputs, Layout, Rope, Value
from ..types import Batch, Encoding, Output
from .base import BatchSizes, Capacity, Need, Offer, Refusal, check_lengths
from .onnx import build_onnx

logger = logging.getLogger(__name__)

BATCH_TOKENS = {"float32": 512, "bfloat16": 1024, "int8": 1024}
"""By number type. Larger batches were not faster on the CPUs measured, and need more memory (docs/log.md)."""
SPLADE_BYTES = 1 << 27
"""The most that SPLADE's logits `[B, S, V]` may take, in float32: those of about 1,000 tokens of BERT."""
WIDTH_MULTIPLE = 8
"""Padded widths are rounded up to it: OpenVINO makes and keeps kernels for every shape it sees (docs/log.md)."""
TRIAL_SIZES = (256, 512, 1024, 2048)
"""Batches that are measured, in tokens."""
WARM_UP_TOKENS = 8
"""A text of a few words: the kernels of a single token are others than those of all longer texts."""
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What is computed in outside of 8-bit products: their kernels take float32 activations and quantize them."""

RELEASE_EVERY_S = 0.05
OPS: dict[str, type[OpenVINOOps]] = {"float32": Float32OpenVINOOps, "bfloat16": OpenVINOOps, "int8": Int8OpenVINOOps}


@cache
def core() -> ov.Core:
    """OpenVINO's runtime: one for the process, for engines share its plugin."""
    return ov.Core()


def choose_dtype(wanted: str) -> str | Refusal:
    """`auto` is bfloat16 where the CPU computes in it natively, else float32."""
    native = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "auto":
        return "bfloat16" if native else "float32"
    if wanted == "int16":
        return Refusal("`--dtype int16`: OpenVINO does not compute in it", "use `--engine native`")
    if wanted not in PRECISIONS:
        return Refusal(f"`--dtype {wanted}`: CPUs run float32, bfloat16 and int8 only", "use `--dtype auto`")
    if wanted == "bfloat16" and not native:
        return Refusal("`--dtype bfloat16`: this CPU does not compute in it", "use `--dtype auto`")
    if wanted == "int8" and not has_vnni():
        logger.warning(
            "`--dtype int8`: this CPU has no VNNI; only the weights are 8 bits, which saves memory, not time"
        )
    return wanted


def inspect_graph(checkpoint: Checkpoint) -> Network:
    """What is known of a checkpoint's ONNX graph. Raises as the engine would, which is not made."""
    return build_onnx(core(), checkpoint, OpenVINOOps(checkpoint.max_input_length))


class OpenVINOEngine:
    """Runs padded batches on the CPU (see `base.Engine`).

    A batch that is alone runs on all `threads`; under load `streams` batches run side by side on a share of them each,
    which is faster for small models. Both forms are compiled in the background: the first at once (`run` waits for it),
    the second when it is first needed.
    """

    def __init__(self, need: Need, offer: Offer) -> None:
        """Raises UnsupportedError or CheckpointError where the checkpoint can't be built (`models.build`), and
        StartError where there can be no folder for compiled models."""
        self.longest = need.checkpoint.longest
        self.cores = offer.threads
        self._weights = need.checkpoint.weights
        self._streams = offer.streams
        ops = OPS[offer.dtype](self.longest)
        graph, network, self._inputs = _build_graph(need.checkpoint, ops)
        self._graph: ov.Model | None = graph
        self._properties = _properties(ops, PRECISIONS[offer.dtype], offer.threads, need.settings.engine.compile_cache)
        self.dimensions = network.dimensions
        self.vocabulary = network.vocabulary
        sizes = BatchSizes(BATCH_TOKENS[offer.dtype], TRIAL_SIZES, SPLADE_BYTES)
        best, self.trials = sizes.fit(need, logits_bytes=4 * network.vocabulary)
        self.capacity = Capacity(offer.streams, best)
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._wide: Future[_Compiled] | None = self._compiler.submit(self._compile, 1)
        self._narrow: Future[_Compiled] | None = None
        self._lock = threading.Lock()

    def arrange(self, encodings: list[Encoding]) -> Batch:
        check_lengths(encodings, self.longest)
        return Batch.pad(encodings, self._width(max(map(len, encodings))))

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return self._width(longest) * count

    def _width(self, longest: int) -> int:
        """`longest` rounded up, but not to more positions than the model has."""
        return max(longest, min(-(-longest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE, self.longest))

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        wide = self._wide
        assert wide is not None, "the engine is closed"
        has_all = cores is None or cores >= self.cores
        return (wide if has_all or self._streams == 1 else self._narrow_or(wide)).result().run(batch, tokens=tokens)

    def prepare(self, streams: int) -> None:
        self._streams = streams
        if streams > 1:
            self._compiled_narrow().result()
        else:
            self._narrow = None

    def close(self) -> None:
        self._compiler.shutdown()
        self._graph = self._wide = self._narrow = None  # constants and compiled models are most of an engine's memory
        self._weights.release()

    def _narrow_or(self, wide: Future[_Compiled]) -> Future[_Compiled]:
        """The form for several streams, or `wide` until it is compiled."""
        narrow = self._compiled_narrow()
        return narrow if narrow.done() and narrow.exception() is None else wide

    def _compiled_narrow(self) -> Future[_Compiled]:
        with self._lock:
            if self._narrow is None:
                self._narrow = self._compiler.submit(self._compile, self._streams)
            return self._narrow

    def _compile(self, streams: int) -> _Compiled:
        assert self._graph is not None, "the engine is closed"
        with kept_small(self._weights):  # the compiled model gets its own, rearranged copy of the matrices
            properties = self._properties | {"NUM_STREAMS": streams}
            compiled = core().compile_model(self._graph, "CPU", properties)
            ready = _Compiled(compiled, self._inputs, requests=streams + 1)
            warm_up = np.zeros(min(WARM_UP_TOKENS, self.longest), np.int32)
            ready.run(Batch.pad([Encoding(warm_up, None, 0)]), tokens=False)
        return ready


class _Compiled:
    """A compiled model with its infer requests; one more than streams, so that the next batch waits inside."""

    def __init__(self, compiled: ov.CompiledModel, inputs: _Inputs, *, requests: int) -> None:
        self._gives_tokens = len(compiled.outputs) > 1
        self._free: SimpleQueue[ov.InferRequest] = SimpleQueue()
        self._inputs = inputs
        for _ in range(requests):
            self._free.put(compiled.create_infer_request())

    def run(self, batch: Batch, *, tokens: bool) -> Output:
        if tokens and not self._gives_tokens:
            raise ValueError("this model's graph gives no vectors of tokens")
        request = self._free.get()
        try:
            request.infer(self._inputs.of(batch), share_inputs=True)
            pooled = request.get_output_tensor(0).data.copy()  # the request will be used again
            hidden = request.get_output_tensor(1).data.copy() if tokens else None
        finally:
            self._free.put(request)
        return Output(pooled, hidden)


@contextmanager
def kept_small(weights: Weights) -> Iterator[None]:
    """Gives the memory of mapped weights back while they are read, and at the end: else it adds to the peak."""
    done = threading.Event()

    def release() -> None:
        while not done.wait(RELEASE_EVERY_S):
            weights.release()

    releasing = threading.Thread(target=release, name="release", daemon=True)
    releasing.start()
    try:
        yield
    finally:
        done.set()
        releasing.join()
        weights.release()


def _properties(ops: OpenVINOOps, precision: str, threads: int, cache: Path | None) -> dict[str, Any]:
    """What OpenVINO compiles with, but for the number of streams."""
    properties: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,
    }
    if isinstance(ops, Int8OpenVINOOps):
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = ops.group
    if cache is None:
        return properties
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"can't make the folder {cache} for compiled models: {error.strerror}") from error
    return properties | {"CACHE_DIR": str(cache)}


@dataclass(frozen=True, slots=True)
class _Inputs:
    """A graph is fed token ids `[B, S]`, token types `[B, S]` or `[1, 1]`, lengths `[B]`, and what it asks for."""

    attended: bool
    """How many of the first tokens are seen, `[B]`, in late interaction."""
    ropes: tuple[Rope, ...]
    """Rotations that depend on the lengths."""

    def of(self, batch: Batch) -> list[NDArray[Any]]:
        type_ids = np.zeros((1, 1), np.int32) if batch.type_ids is None else batch.type_ids
        fed: list[NDArray[Any]] = [batch.input_ids, type_ids, batch.lengths]
        if self.attended:
            fed.append(batch.lengths if batch.attended is None else batch.attended)
        width = batch.input_ids.shape[1]
        return fed + [rotate_by_length(rope, batch.lengths.tolist(), width) for rope in self.ropes]


def _build_graph(checkpoint: Checkpoint, ops: OpenVINOOps) -> tuple[ov.Model, Network, _Inputs]:
    """Outputs: pooled, what tokens get."""
    input_ids = op.parameter([-1, -1], np.int32, name="input_ids")
    type_ids = op.parameter([-1, -1], np.int32, name="token_type_ids")
    lengths = op.parameter([-1], np.int32, name="lengths")
    attended = None if checkpoint.late is None else op.parameter([-1], np.int32, name="attended")
    width = op.gather(op.shape_of(input_ids), op.constant(np.int64(1)), op.constant(np.int64(0)))
    network = build(checkpoint, ops) if checkpoint.onnx is None else build_onnx(core(), checkpoint, ops)
    layout = PaddedLayout(lengths, width, attended)
    inputs = Inputs(Value(input_ids), Value(type_ids), Layout(layout))
    results = network.run(ops, inputs)
    outputs = [value.raw for value in results if value is not None]
    rotations = layout.rotations_by_length
    parameters = [input_ids, type_ids, lengths, *([] if attended is None else [attended]), *rotations.values()]
    model = ov.Model(outputs, parameters, checkpoint.model_type)
    return model, network, _Inputs(attended is not None, tuple(rotations))
