"""From a checkpoint to the parts of a model that can be asked: tokenizer, engine, and what is known of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..checkpoint import ChatTemplate, Checkpoint, Router
from ..engines.base import Engine
from ..engines.measure import Quantity
from ..errors import CheckpointError, StartError
from ..machine import available_memory
from ..settings import Settings
from ..tokenization import (
    ROLES,
    SidedTokenizer,
    TextOptions,
    Tokenizer,
    compile_chat_template,
    resolve_default_prompt,
    role_prompt,
)
from ..types import Encoding, ModelInfo, PairTemplate
from .fidelity import FAITHFUL, LEAST, fidelity
from .open import Opened

logger = logging.getLogger(__name__)


FIDELITY_MEMORY_SHARE = 0.25
"""Of the free memory, which the measurement of fidelity may take for weights; it needs about twice as much."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model is made of. The engine is closed by who takes it."""

    info: ModelInfo
    tokenizer: Tokenizer | SidedTokenizer
    engine: Engine
    another_engine: Callable[[], Engine] | None = None
    """Makes one in place of an engine that hangs or is broken; it may raise."""
    measure_fidelity: Callable[[], float] | None = None
    """The smallest cosine of the engine's vectors with those of float32, on built-in texts; None: it is float32, or
    there is too little memory to tell."""
    to_measure: tuple[Quantity, ...] = ()
    """What was not set by hand of the engine's capacity."""


def load_parts(opened: Opened) -> Parts:
    """The parts of a model that was opened. The engine may still be compiling: `warm_up` waits for it.

    Raises StartError where the tokenizer can't be had.
    """
    checkpoint, engine, settings = opened.need.checkpoint, opened.engine, opened.need.settings
    info = ModelInfo(
        model_id=settings.model.model_id,
        revision=settings.model.revision,
        served_name=settings.model.served_name,
        kind=checkpoint.kind,
        pooling=checkpoint.pooling,
        labels=checkpoint.labels,
        label_ids=checkpoint.label_ids,
        dtype=opened.offer.dtype,
        engine=opened.offer.name,
        architecture=checkpoint.model_type,
        dimensions=engine.dimensions,
        vocabulary=engine.vocabulary,
        max_input_length=opened.max_input_length,
        columns=checkpoint.columns,
        sides=() if checkpoint.router is None else tuple(checkpoint.router.sides),
    )
    tokenizer = load_tokenizers(
        checkpoint, settings, max_input_length=opened.max_input_length, vocabulary=engine.vocabulary
    )
    by_hand: dict[Quantity, int | None] = {
        "batch_tokens": settings.limits.max_batch_tokens,
        "streams": settings.engine.streams,
    }
    can_compare = opened.offer.dtype != "float32" and fits_twice(checkpoint)
    return Parts(
        info,
        tokenizer,
        engine,
        opened.another_engine,
        measure_fidelity=partial(measure_fidelity, opened, tokenizer) if can_compare else None,
        to_measure=tuple(quantity for quantity, value in by_hand.items() if value is None),
    )


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
    if free is None or needed < FIDELITY_MEMORY_SHARE * free:
        return True
    logger.warning("How near the vectors are to float32 is not measured: that takes %.1f GB more", needed / 1e9)
    return False


def measure_fidelity(opened: Opened, tokenizer: Tokenizer | SidedTokenizer) -> float:
    """The smallest cosine of the engine's vectors with those of float32, on built-in texts."""
    reference = opened.kind.make_reference(opened.need, opened.offer)
    try:
        cosine = fidelity(opened.engine, reference, tokenizer, opened.need.checkpoint.kind)
    finally:
        reference.close()
    dtype = opened.offer.dtype
    least = LEAST.get(dtype, FAITHFUL)
    logger.info("%s: smallest cosine with float32 on built-in texts %.5f", dtype, cosine)
    if cosine < least:
        logger.warning("%s: that is less than %s; `--dtype float32` loses nothing", dtype, least)
    return cosine


def load_tokenizers(
    checkpoint: Checkpoint, settings: Settings, *, max_input_length: int, vocabulary: int
) -> Tokenizer | SidedTokenizer:
    """The tokenizer, or those of all sides; length and vocabulary are the main one's. Raises CheckpointError."""
    router, wanted = checkpoint.router, settings.model.default_prompt_name
    load = partial(load_tokenizer, router=router)
    main = load(checkpoint, settings, max_input_length=max_input_length, vocabulary=vocabulary)
    if router is None:
        return main
    tokenizers = {router.own: main}
    for name, side in checkpoint.sides.items():
        length = min(side.max_input_length, settings.limits.token_limit)
        its_vocabulary = int(side.config["vocab_size"])
        tokenizers[name] = load(side, settings, max_input_length=length, vocabulary=its_vocabulary)
    default = router.default if wanted is None else router.names.get(wanted, router.default)
    return SidedTokenizer(tokenizers, router.names, default)


def load_tokenizer(
    checkpoint: Checkpoint,
    settings: Settings,
    *,
    max_input_length: int,
    vocabulary: int,
    router: Router | None = None,
) -> Tokenizer:
    """The tokenizer with the model's prompts and limits. Raises CheckpointError.

    router: of a model with several sides, of which this is one.
    """
    prompt, role, late = settings.model.default_prompt, None, checkpoint.late
    names = frozenset() if router is None else frozenset(router.names)
    if late is not None and settings.model.default_prompt_name in ROLES:
        role = settings.model.default_prompt_name
        prompt = role_prompt(checkpoint.prompts, role)
    elif settings.model.default_prompt_name in names:
        prompt = (checkpoint.prompts or {}).get(settings.model.default_prompt_name or "")
    elif settings.model.default_prompt_name is not None:
        prompt = resolve_default_prompt(checkpoint.prompts, settings.model.default_prompt_name)
    if late is not None:
        longest = settings.limits.token_limit
        query, document = min(late.query_length, longest), min(late.document_length, longest)
        late = replace(late, query_length=query, document_length=document)
    template = _pair_template(checkpoint)
    if template is not None and not template.instructed:
        if prompt:
            raise CheckpointError("`--default-prompt`: the model's template has no place for an instruction")
    elif prompt is None and checkpoint.reranking.prompt_name is not None:
        prompt = resolve_default_prompt(checkpoint.prompts, checkpoint.reranking.prompt_name)
    options = TextOptions(
        max_input_length=max_input_length,
        vocabulary=vocabulary,
        prompts=checkpoint.prompts,
        default_prompt=prompt,
        rules=checkpoint.rules,
        late=late,
        default_role=role,
        template=template,
        prompted_pairs=checkpoint.reranking.prompted,
        sides=names,
    )
    return Tokenizer.load(checkpoint.tokenizer_file, options)


def _pair_template(checkpoint: Checkpoint) -> PairTemplate | None:
    """What pairs are put into. Raises CheckpointError for a chat template that is of no use."""
    template = checkpoint.reranking.template
    if isinstance(template, ChatTemplate):
        chat = template
        return compile_chat_template(
            chat.source, chat.where, chat.variables, structured=chat.structured, named=chat.named
        )
    return template
