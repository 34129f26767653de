"""From a checkpoint to the parts of a model that can be asked: tokenizer, engine, and what is known of them."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from ..checkpoint import Checkpoint, HubAccess, locate, open_checkpoint
from ..cpus import available_memory
from ..engines.base import Engine
from ..engines.devices import has_gpu_driver
from ..errors import StartError, UnsupportedError
from ..models import ARCHITECTURES, choose
from ..settings import Settings
from ..tokenization import ROLES, Tokenizer, resolve_default_prompt
from ..types import Encoding, ModelInfo, Pooling
from .fidelity import FAITHFUL, fidelity

logger = logging.getLogger(__name__)


MAX_STREAMS = 8
"""More streams of one model only spread its weights over more caches."""
INSTALL_TORCH = "pip install 'text-embeddings-inference[torch]'"


SHARE_FOR_FIDELITY = 0.25
"""Of the free memory, which the measurement of fidelity may take for weights; it needs about twice as much."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a `Model` is made of."""

    checkpoint: Checkpoint
    info: ModelInfo
    tokenizer: Tokenizer
    engine: Engine


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What runs a model: the engine's name, its number type, its threads, how many batches run side by side, and where
    (`cpu`, `cuda`, `mps`, ...)."""

    name: str
    dtype: str
    threads: int
    streams: int
    device: str = "cpu"


def load_parts(settings: Settings) -> Parts:
    """Finds the checkpoint and opens it. The engine may still be compiling: `warm_up` waits for it.

    Raises StartError where the model can't be had or can't be run.
    """
    dense_path, onnx_file = settings.dense_path, settings.onnx_file
    folder = locate(settings.model_id, hub_access(settings), dense_path=dense_path, onnx_file=onnx_file)
    checkpoint = open_checkpoint(folder, pooling=settings.pooling, dense_path=dense_path, onnx_file=onnx_file)
    max_input_length = find_max_input_length(checkpoint, settings)
    engine = load_engine(checkpoint, settings)
    info = ModelInfo(
        model_id=settings.model_id,
        revision=settings.revision,
        served_name=settings.served_name,
        kind=checkpoint.kind,
        pooling=checkpoint.pooling,
        labels=checkpoint.labels,
        label_ids=checkpoint.label_ids,
        dtype=engine.dtype,
        engine=engine.name,
        architecture=checkpoint.model_type,
        dimensions=engine.dimensions,
        vocabulary=engine.vocabulary,
        max_input_length=max_input_length,
        columns=checkpoint.columns,
    )
    try:
        vocabulary = engine.vocabulary
        tokenizer = load_tokenizer(checkpoint, settings, max_input_length=max_input_length, vocabulary=vocabulary)
    except BaseException:
        engine.close()  # it may still be compiling
        raise
    return Parts(checkpoint, info, tokenizer, engine)


def warm_up(engine: Engine) -> None:
    """Waits until the engine is ready, and runs one token. Raises StartError if the engine can't run it."""
    start = time.perf_counter()
    try:
        engine.run(engine.arrange([Encoding(np.zeros(1, np.int32), None, 0)]), tokens=False, alone=True)
    except Exception as problem:  # whatever the hardware's library raises
        raise StartError(f"Model backend is not healthy: {problem}") from problem
    logger.info("Warmed up: waited %.2f s for the engine", time.perf_counter() - start)


def fits_twice(checkpoint: Checkpoint) -> bool:
    """Whether there is memory for the model in float32 beside the one that is served."""
    weights = checkpoint.weights
    needed = 4 * sum(math.prod(weights.shape(name)) for name in weights.names())
    free = available_memory()
    if free is None or needed < SHARE_FOR_FIDELITY * free:
        return True
    logger.warning("How near the vectors are to float32 is not measured: that takes %.1f GB more", needed / 1e9)
    return False


def measure_fidelity(parts: Parts, settings: Settings) -> float:
    """The smallest cosine of the engine's vectors with those of float32, on built-in texts."""
    reference = _make_engine(parts.checkpoint, _reference_plan(parts.engine, settings), settings)
    try:
        cosine = fidelity(parts.engine, reference, parts.tokenizer, parts.info.kind)
    finally:
        reference.close()
    level = logging.INFO if cosine >= FAITHFUL else logging.WARNING
    logger.log(level, "%s: smallest cosine with float32 on built-in texts %.5f", parts.engine.dtype, cosine)
    return cosine


def _reference_plan(engine: Engine, settings: Settings) -> EnginePlan:
    """What computes the float32 that others are compared with."""
    name = "transformers" if engine.name == "transformers" else "openvino"
    return EnginePlan(name, "float32", settings.threads, 1)


def hub_access(settings: Settings) -> HubAccess:
    """How the settings say that the Hub is reached."""
    return HubAccess(
        cache_dir=settings.hub_cache,
        revision=settings.revision,
        token=settings.token,
        endpoint=settings.hf_endpoint,
        offline=settings.hf_hub_offline,
        user_agent_origin=settings.hf_hub_user_agent_origin,
    )


def find_max_input_length(checkpoint: Checkpoint, settings: Settings) -> int:
    """The longest input in tokens. Raises StartError where no batch can hold it and it may not be cut."""
    length, budget = checkpoint.max_input_length, settings.max_batch_tokens
    if length > budget:
        if not settings.auto_truncate:
            raise StartError(
                f"`--max-batch-tokens` ({budget}) is less than the model's longest input ({length} tokens)",
                hint=f"set `--max-batch-tokens` to {length} or more, or `--auto-truncate` to cut longer inputs",
            )
        logger.warning("Inputs are cut to %d tokens (`--max-batch-tokens`): the model could take %d", budget, length)
    length = min(length, budget)
    logger.info("Maximum number of tokens per request: %d", length)
    return length


def load_tokenizer(checkpoint: Checkpoint, settings: Settings, *, max_input_length: int, vocabulary: int) -> Tokenizer:
    """The tokenizer with the model's prompts and limits. Raises CheckpointError."""
    prompt, role, late = settings.default_prompt, None, checkpoint.late
    if late is not None and settings.default_prompt_name in ROLES:
        role = settings.default_prompt_name
        prompt = (checkpoint.prompts or {}).get(role)
    elif settings.default_prompt_name is not None:
        prompt = resolve_default_prompt(checkpoint.prompts, settings.default_prompt_name)
    if late is not None:
        longest = settings.max_batch_tokens
        query, document = min(late.query_length, longest), min(late.document_length, longest)
        late = replace(late, query_length=query, document_length=document)
    auto_map = checkpoint.config.get("auto_map")
    return Tokenizer.load(
        checkpoint.tokenizer_file,
        max_input_length=max_input_length,
        prompts=checkpoint.prompts,
        default_prompt=prompt,
        vocabulary=vocabulary,
        model_type=checkpoint.model_type,
        auto_map=auto_map if isinstance(auto_map, dict) else None,
        late=late,
        default_role=role,
    )


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


def plan_engine(settings: Settings, model_type: str) -> EnginePlan:
    """What runs a model of this `model_type`, on this machine. Raises StartError for what it can't do."""
    device = _torch_device(settings)
    if device is not None:
        from ..engines import torch

        dtype = torch.choose_dtype(settings.dtype, device, model_type)
        return EnginePlan("torch", dtype, settings.threads, torch.TorchEngine.streams, device)
    with _without_converter():
        from ..engines import openvino

    return EnginePlan(
        name="openvino",
        dtype=openvino.choose_dtype(settings.dtype),
        threads=settings.threads,
        streams=settings.streams or min(settings.threads, MAX_STREAMS),
    )


def plan_for(checkpoint: Checkpoint, settings: Settings) -> EnginePlan:
    """What runs this checkpoint, on this machine. Raises StartError for what it can't do."""
    if checkpoint.onnx is None and choose(checkpoint.model_type, checkpoint.config) is None:
        return _plan_transformers(checkpoint, settings)
    if checkpoint.onnx is None:
        return plan_engine(settings, checkpoint.model_type)
    if settings.engine == "torch":
        raise UnsupportedError(
            f"`--engine torch`: {checkpoint.onnx.file} is an ONNX graph, which OpenVINO runs",
            hint="use `--engine auto`",
        )
    if settings.dtype == "int8":
        raise UnsupportedError(
            f"`--dtype int8`: {checkpoint.onnx.file} is an ONNX graph, which is run as it is",
            hint="use `--onnx-file` with a quantized graph, if the model has one",
        )
    return plan_engine(replace(settings, engine="openvino"), checkpoint.model_type)


def _plan_transformers(checkpoint: Checkpoint, settings: Settings) -> EnginePlan:
    """For a model that no file of ours covers. Raises UnsupportedError where Transformers can't run it instead."""
    problem = f"config.json: `model_type` is {checkpoint.model_type!r}, which is not supported"
    if settings.engine == "openvino":
        raise UnsupportedError(f"{problem} on OpenVINO", hint=f"supported are {', '.join(ARCHITECTURES)}")
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise UnsupportedError(
            problem,
            hint=f"supported are {', '.join(ARCHITECTURES)}; others may run by Transformers on PyTorch: "
            "pip install torch transformers",
        )
    from ..engines import torch

    device = torch.choose_device()
    dtype = torch.choose_dtype(settings.dtype, device, checkpoint.model_type)
    return EnginePlan("transformers", dtype, settings.threads, torch.TorchEngine.streams, device)


def _torch_device(settings: Settings) -> str | None:
    """What PyTorch is to run the model on; None if another engine runs it. Raises StartError if PyTorch is missing."""
    if settings.engine == "torch":
        try:
            from ..engines.torch import choose_device
        except ModuleNotFoundError as problem:
            if (problem.name or "").partition(".")[0] != "torch":
                raise
            raise StartError("`--engine torch`: PyTorch 2.12 or newer is not installed", hint=INSTALL_TORCH) from None
        return choose_device()
    if settings.engine == "openvino" or settings.dtype == "int8" or not has_gpu_driver():
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
        *(checkpoint.model_type, plan.name, plan.device, plan.dtype, settings.dtype, plan.threads, plan.streams),
    )
    engine = _make_engine(checkpoint, plan, settings)
    if "max_batch_tokens" in settings.given and checkpoint.pooling is not Pooling.SPLADE:  # its logits fill the memory
        engine.batch_tokens = settings.max_batch_tokens
    return engine


def _make_engine(checkpoint: Checkpoint, plan: EnginePlan, settings: Settings) -> Engine:
    if plan.name in ("torch", "transformers"):
        if settings.streams not in (None, plan.streams):
            logger.warning("`--streams` is ignored: PyTorch runs one batch after the other")
        if settings.compile_cache is not None:
            logger.warning("`--compile-cache` is ignored: PyTorch compiles nothing")
        if plan.name == "transformers":
            return _make_transformers(checkpoint, plan, settings)
        from ..engines.torch import TorchEngine

        return TorchEngine(checkpoint, device=plan.device, dtype=plan.dtype, threads=plan.threads)
    from ..engines.openvino import OpenVINOEngine

    return OpenVINOEngine(
        checkpoint, dtype=plan.dtype, threads=plan.threads, streams=plan.streams, cache=settings.compile_cache
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
        trust_remote_code=settings.trust_remote_code,
    )
