"""From a checkpoint to the parts of a model that can be asked: tokenizer, engine, and what is known of them."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace

import numpy as np

from ..checkpoint import Checkpoint
from ..engines.base import Engine
from ..errors import StartError
from ..machine import available_memory
from ..settings import Settings
from ..tokenization import ROLES, TextOptions, Tokenizer, resolve_default_prompt
from ..types import Encoding, ModelInfo
from .fidelity import FAITHFUL, fidelity
from .open import EnginePlan, Opened, make_engine, open_model

logger = logging.getLogger(__name__)


SHARE_FOR_FIDELITY = 0.25
"""Of the free memory, which the measurement of fidelity may take for weights; it needs about twice as much."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a `Model` is made of."""

    checkpoint: Checkpoint
    info: ModelInfo
    tokenizer: Tokenizer
    engine: Engine


def load_parts(settings: Settings, opened: Opened | None = None) -> Parts:
    """The parts of the model that the settings describe. The engine may still be compiling: `warm_up` waits for it.

    opened: what `open_model` has made of the settings, None if it has not been called. Raises StartError where the
    model can't be had or can't be run.
    """
    opened = open_model(settings) if opened is None else opened
    checkpoint, engine, max_input_length = opened.checkpoint, opened.engine, opened.max_input_length
    info = ModelInfo(
        model_id=settings.model.model_id,
        revision=settings.model.revision,
        served_name=settings.model.served_name,
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
        engine.run(engine.arrange([Encoding(np.zeros(1, np.int32), None, 0)]))
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
    reference = make_engine(parts.checkpoint, _reference_plan(parts.engine, settings), settings)
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
    return EnginePlan(name, "float32", settings.engine.threads, 1)


def load_tokenizer(checkpoint: Checkpoint, settings: Settings, *, max_input_length: int, vocabulary: int) -> Tokenizer:
    """The tokenizer with the model's prompts and limits. Raises CheckpointError."""
    prompt, role, late = settings.model.default_prompt, None, checkpoint.late
    if late is not None and settings.model.default_prompt_name in ROLES:
        role = settings.model.default_prompt_name
        prompt = (checkpoint.prompts or {}).get(role)
    elif settings.model.default_prompt_name is not None:
        prompt = resolve_default_prompt(checkpoint.prompts, settings.model.default_prompt_name)
    if late is not None:
        longest = settings.limits.token_limit
        query, document = min(late.query_length, longest), min(late.document_length, longest)
        late = replace(late, query_length=query, document_length=document)
    options = TextOptions(
        max_input_length=max_input_length,
        vocabulary=vocabulary,
        prompts=checkpoint.prompts,
        default_prompt=prompt,
        rules=checkpoint.rules,
        late=late,
        default_role=role,
    )
    return Tokenizer.load(checkpoint.tokenizer_file, options)
