"""When Transformers runs a model: where no file of ours covers it."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from ..models import supported
from ..models.build import Network
from .base import Engine, EngineKind, Need, Offer, Refusal, refuse_graph
from .torch_kind import offer_on_device

logger = logging.getLogger(__name__)


class TransformersKind(EngineKind):
    """Models as Transformers has them, on PyTorch: slower, but with our pooling and limits."""

    name = "transformers"
    option = "torch"

    def offer(self, need: Need) -> Offer | Refusal:
        if need.checkpoint.onnx is not None:
            return refuse_graph(need)
        if need.checkpoint.facts.file is not None:
            return Refusal("it is for models that no file of ours covers", is_others=True)
        if find_spec("torch") is None or find_spec("transformers") is None:
            return Refusal(
                f"config.json: `model_type` is {need.checkpoint.model_type!r}, which is not supported",
                f"{supported()}; others may run by Transformers on PyTorch: pip install torch transformers",
            )
        return offer_on_device(self.name, need)

    def make(self, need: Need, offer: Offer) -> Engine:
        from .transformers import TransformersEngine

        logger.warning(
            "No architecture of this server fits `model_type` %r: it is run by Transformers, which is slower",
            need.checkpoint.model_type,
        )
        return TransformersEngine(
            need.checkpoint, offer, batch_tokens=need.batch_tokens, trust_remote_code=need.trust_remote_code
        )

    def inspect(self, need: Need) -> Network | None:
        from .transformers import inspect

        return inspect(need.checkpoint, trust_remote_code=need.trust_remote_code)
