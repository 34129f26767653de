"""From settings to a checkpoint and an engine that compiles it: the first part of a start, which imports little."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import prod

from ..checkpoint import Checkpoint, Facts, HubAccess, locate, open_checkpoint
from ..engines.base import Engine
from ..errors import StartError, UnsupportedError
from ..machine import has_gpu_driver
from ..models import choose, supported
from ..models.build import facts_of
from ..settings import Settings
from ..types import Pooling

logger = logging.getLogger(__name__)

MAX_STREAMS = 8
"""More streams of one model only spread its weights over more caches."""
FEW_THREADS = 2
LARGE_COPY = 256_000_000
"""Bytes of weights. On few threads, several streams give a tenth more throughput, for a copy of the weights that is
rearranged for them (docs/log.md): too little for so much memory."""
ELEMENT = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of a number, by what OpenVINO computes in."""
INSTALL_TORCH = "pip install 'text-embeddings-inference[torch]'"


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What runs a model: the engine's name, its number type, its threads, how many batches run side by side, and where
    (`cpu`, `cuda`, `mps`, ...)."""

    name: str
    dtype: str
    threads: int
    streams: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint and its engine, which may still be compiling; max_input_length: tokens of the longest input."""

    checkpoint: Checkpoint
    engine: Engine
    max_input_length: int


def open_model(settings: Settings) -> Opened:
    """Finds the checkpoint, opens it, and has its engine begin to compile. Raises StartError."""
    dense_path, onnx_file = settings.model.dense_path, settings.model.onnx_file
    folder = locate(settings.model.model_id, hub_access(settings), dense_path=dense_path, onnx_file=onnx_file)
    checkpoint = open_checkpoint(
        folder, facts_of, pooling=settings.model.pooling, dense_path=dense_path, onnx_file=onnx_file
    )
    max_input_length = find_max_input_length(checkpoint, settings)
    return Opened(checkpoint, load_engine(checkpoint, settings), max_input_length)


def hub_access(settings: Settings) -> HubAccess:
    """How the settings say that the Hub is reached."""
    return HubAccess(
        cache_dir=settings.hub.cache,
        revision=settings.model.revision,
        token=settings.hub.token,
        endpoint=settings.hub.hf_endpoint,
        offline=settings.hub.hf_hub_offline,
        user_agent_origin=settings.hub.hf_hub_user_agent_origin,
    )


def find_max_input_length(checkpoint: Checkpoint, settings: Settings) -> int:
    """The longest input in tokens. Raises StartError where no batch can hold it and it may not be cut."""
    length, budget = checkpoint.max_input_length, settings.limits.token_limit
    if length > budget:
        if not settings.model.auto_truncate:
            raise StartError(
                f"`--max-batch-tokens` ({budget}) is less than the model's longest input ({length} tokens)",
                hint=f"set `--max-batch-tokens` to {length} or more, or `--auto-truncate` to cut longer inputs",
            )
        logger.warning("Inputs are cut to %d tokens (`--max-batch-tokens`): the model could take %d", budget, length)
    length = min(length, budget)
    logger.info("Maximum number of tokens per request: %d", length)
    return length


@contextmanager
def _without_converter() -> Iterator[None]:
    """Keeps OpenVINO's package from importing its converter, and with it a telemetry client that reports to its maker.

    Takes 70 ms from the start, too. Nothing is changed in a process that has imported the converter already.
    """
    name = "openvino.tools.ovc"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # refuses the import, and OpenVINO does without
    try:
        yield
    finally:
        del sys.modules[name]


def plan_engine(settings: Settings, facts: Facts, matrices: int = 0) -> EnginePlan:
    """What runs a model of such an architecture, on this machine. Raises StartError for what it can't do.

    matrices: how many numbers a compiled model has its own copy of.
    """
    device = _torch_device(settings)
    if device is not None:
        from ..engines import torch

        dtype = torch.choose_dtype(settings.engine.dtype, device, facts)
        return EnginePlan("torch", dtype, settings.engine.threads, 1, device)
    with _without_converter():
        from ..engines import openvino

    dtype, threads = openvino.choose_dtype(settings.engine.dtype), settings.engine.threads
    is_large = threads <= FEW_THREADS and matrices * ELEMENT[dtype] > LARGE_COPY
    streams = settings.engine.streams or (1 if is_large else min(threads, MAX_STREAMS))
    return EnginePlan("openvino", dtype, threads, streams)


def count_matrices(checkpoint: Checkpoint, vocabulary: int | None) -> int:
    """The numbers in a checkpoint's matrices. Tables of embeddings are none, unless they are multiplied with, too.

    vocabulary: rows of the table; None: not known, and it is counted.
    """
    shapes = (checkpoint.weights.shape(name) for name in checkpoint.weights)
    is_tied = checkpoint.pooling is Pooling.SPLADE
    return sum(prod(shape) for shape in shapes if len(shape) > 1 and (is_tied or shape[0] != vocabulary))


def plan_for(checkpoint: Checkpoint, settings: Settings) -> EnginePlan:
    """What runs this checkpoint, on this machine. Raises StartError for what it can't do."""
    if checkpoint.onnx is None and choose(checkpoint.model_type, checkpoint.config) is None:
        return _plan_transformers(checkpoint, settings)
    if checkpoint.onnx is None:
        matrices = count_matrices(checkpoint, checkpoint.config.get("vocab_size"))
        return plan_engine(settings, checkpoint.facts, matrices)
    if settings.engine.engine == "torch":
        raise UnsupportedError(
            f"`--engine torch`: {checkpoint.onnx.file} is an ONNX graph, which OpenVINO runs",
            hint="use `--engine auto`",
        )
    if settings.engine.dtype == "int8":
        raise UnsupportedError(
            f"`--dtype int8`: {checkpoint.onnx.file} is an ONNX graph, which is run as it is",
            hint="use `--onnx-file` with a quantized graph, if the model has one",
        )
    return plan_engine(replace(settings, engine=replace(settings.engine, engine="openvino")), checkpoint.facts)


def _plan_transformers(checkpoint: Checkpoint, settings: Settings) -> EnginePlan:
    """For a model that no file of ours covers. Raises UnsupportedError where Transformers can't run it instead."""
    problem = f"config.json: `model_type` is {checkpoint.model_type!r}, which is not supported"
    if settings.engine.engine == "openvino":
        raise UnsupportedError(f"{problem} on OpenVINO", hint=supported())
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise UnsupportedError(
            problem,
            hint=f"{supported()}; others may run by Transformers on PyTorch: pip install torch transformers",
        )
    from ..engines import torch

    device = torch.choose_device()
    dtype = torch.choose_dtype(settings.engine.dtype, device, checkpoint.facts)
    return EnginePlan("transformers", dtype, settings.engine.threads, 1, device)


def _torch_device(settings: Settings) -> str | None:
    """What PyTorch is to run the model on; None if another engine runs it. Raises StartError if PyTorch is missing."""
    if settings.engine.engine == "torch":
        try:
            from ..engines.torch import choose_device
        except ModuleNotFoundError as problem:
            if (problem.name or "").partition(".")[0] != "torch":
                raise
            raise StartError("`--engine torch`: PyTorch 2.12 or newer is not installed", hint=INSTALL_TORCH) from None
        return choose_device()
    if settings.engine.engine == "openvino" or settings.engine.dtype == "int8" or not has_gpu_driver():
        return None
    if find_spec("torch") is None:
        logger.info("The CPU is used: for the GPU, PyTorch is missing (%s)", INSTALL_TORCH)
        return None
    from ..engines.torch import choose_device

    device = choose_device()
    return None if device == "cpu" else device


def load_engine(checkpoint: Checkpoint, settings: Settings) -> Engine:
    """Another engine for a checkpoint; it may still be compiling. Raises StartError."""
    plan = plan_for(checkpoint, settings)
    logger.info(
        "Starting %s on %s (%s): %s (wanted: %s), %d threads, up to %d streams",
        *(checkpoint.model_type, plan.name, plan.device, plan.dtype, settings.engine.dtype, plan.threads, plan.streams),
    )
    return make_engine(checkpoint, plan, settings, settings.limits.max_batch_tokens)


def make_engine(
    checkpoint: Checkpoint, plan: EnginePlan, settings: Settings, batch_tokens: int | None = None
) -> Engine:
    if plan.name in ("torch", "transformers"):
        if settings.engine.streams not in (None, plan.streams):
            logger.warning("`--streams` is ignored: PyTorch runs one batch after the other")
        if settings.engine.compile_cache is not None:
            logger.warning("`--compile-cache` is ignored: PyTorch compiles nothing")
        if plan.name == "transformers":
            return _make_transformers(checkpoint, plan, settings)
        from ..engines.torch import TorchEngine

        return TorchEngine(
            checkpoint, device=plan.device, dtype=plan.dtype, threads=plan.threads, batch_tokens=batch_tokens
        )
    from ..engines.openvino import OpenVINOEngine

    return OpenVINOEngine(
        checkpoint,
        dtype=plan.dtype,
        threads=plan.threads,
        streams=plan.streams,
        batch_tokens=batch_tokens,
        cache=settings.engine.compile_cache,
    )


def _make_transformers(checkpoint: Checkpoint, plan: EnginePlan, settings: Settings) -> Engine:
    from ..engines.transformers import TransformersEngine

    logger.warning(
        "No architecture of this server fits `model_type` %r: it is run by Transformers, which is slower",
        checkpoint.model_type,
    )
    return TransformersEngine(
        checkpoint,
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        trust_remote_code=settings.model.trust_remote_code,
    )
