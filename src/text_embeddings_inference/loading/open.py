"""From settings to a checkpoint and an engine that compiles it: the first part of a start, which imports little."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from ..checkpoint import UNLIMITED, Checkpoint, HubAccess, expand, locate, open_checkpoint
from ..engines.base import Engine, EngineKind, Need, Offer
from ..engines.registry import choose
from ..errors import StartError
from ..models.build import facts_of
from ..settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint and its engine, which may still be compiling. As a context manager it closes the engine if an error
    ends the block; else whoever took the engine does."""

    need: Need
    kind: EngineKind
    offer: Offer
    engine: Engine
    max_input_length: int
    """Tokens of the longest input."""

    def another_engine(self) -> Engine:
        """A new engine of the same kind, which may still be compiling. Raises StartError."""
        return make_engine(self.need, self.kind, self.offer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.engine.close()


def open_model(settings: Settings) -> Opened:
    """Finds the checkpoint, opens it, and has its engine begin to compile. Raises StartError."""
    dense_path, onnx_file = settings.model.dense_path, settings.model.onnx_file
    folder = locate(settings.model.model_id, hub_access(settings), dense_path=dense_path, onnx_file=onnx_file)
    checkpoint = find_answers(
        open_checkpoint(
            folder,
            facts_of,
            pooling=settings.model.pooling,
            dense_path=dense_path,
            onnx_file=onnx_file,
            rerank_template=settings.model.rerank_template,
            rerank_answers=settings.model.rerank_answers,
        )
    )
    max_input_length = find_max_input_length(checkpoint, settings)
    need = Need(checkpoint, settings)
    kind, offer, _ = choose(need)
    return Opened(need, kind, offer, make_engine(need, kind, offer), max_input_length)


def find_answers(checkpoint: Checkpoint) -> Checkpoint:
    """With the ids of the tokens whose logits make a score in place of words. Raises CheckpointError."""
    answers = checkpoint.reranking.answers
    if answers is None or not any(isinstance(answer, str) for answer in (answers.true, answers.false)):
        return checkpoint
    from ..tokenization import first_token  # takes a while to import, and few models need it before the engine

    true, false = (
        first_token(checkpoint.tokenizer_file, answer, whole=answers.whole) if isinstance(answer, str) else answer
        for answer in (answers.true, answers.false)
    )
    assert true is not None
    return replace(
        checkpoint, reranking=replace(checkpoint.reranking, answers=replace(answers, true=true, false=false))
    )


def make_engine(need: Need, kind: EngineKind, offer: Offer) -> Engine:
    """An engine as offered, which may still be compiling. Raises StartError."""
    logger.info(
        "Starting %s on %s (%s): %s (wanted: %s), %d threads, up to %d streams",
        *(need.checkpoint.model_type, offer.name, offer.device, offer.dtype, need.settings.engine.dtype),
        *(offer.threads, offer.streams),
    )
    return kind.make(need, offer)


def hub_access(settings: Settings) -> HubAccess:
    """How the settings say that the Hub is reached."""
    hub = settings.hub
    home = expand(hub.hf_home)
    return HubAccess(
        cache_dir=home / "hub" if hub.huggingface_hub_cache is None else expand(hub.huggingface_hub_cache),
        home=home,
        revision=settings.model.revision,
        token=hub.token,
        endpoint=hub.hf_endpoint,
        offline=hub.hf_hub_offline,
        user_agent_origin=hub.hf_hub_user_agent_origin,
    )


def find_max_input_length(checkpoint: Checkpoint, settings: Settings) -> int:
    """The longest input in tokens. Raises StartError where no batch can hold it and it may not be cut."""
    length, budget = checkpoint.max_input_length, settings.limits.token_limit
    if length >= UNLIMITED:
        length = budget
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
