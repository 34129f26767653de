"""Real engines and models of checkpoints, as a start makes them."""

from __future__ import annotations

from typing import Any

from text_embeddings_inference.checkpoint import Checkpoint
from text_embeddings_inference.engines.base import Engine, Need, Offer
from text_embeddings_inference.engines.registry import KINDS
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.loading.load import load_parts
from text_embeddings_inference.loading.open import open_model
from text_embeddings_inference.settings import Settings


def loaded_model(settings: Settings) -> Model:
    """The model that the settings describe, not warmed up. Close it."""
    with open_model(settings) as opened:
        return Model(load_parts(opened), settings.limits)


def need_of(checkpoint: Checkpoint, **options: Any) -> Need:
    """What an engine is wanted for, with these options."""
    return Need(checkpoint, Settings.of(**{"model_id": "m", "threads": 2} | options))


def make_engine(checkpoint: Checkpoint, name: str = "openvino", dtype: str = "float32", *, streams: int = 1) -> Engine:
    """An engine of the kind of this name, on the CPU. Close it."""
    kind = next(kind for kind in KINDS if kind.name == name)
    return kind.make(need_of(checkpoint), Offer(name, dtype, threads=2, streams=streams))
