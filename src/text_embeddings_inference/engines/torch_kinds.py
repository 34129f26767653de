"""When PyTorch runs a model: one of ours on a GPU, or where it is asked for; others as Transformers has them."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from ..machine import has_gpu_driver
from ..models import supported
from ..models.build import Network
from .base import Engine, EngineKind, Need, Offer, Refusal, refuse_graph, refuse_unknown

logger = logging.getLogger(__name__)

INSTALL = "pip install 'text-embeddings-inference[torch]'"
DTYPES = ("float32", "float16", "bfloat16")


class TorchKind(EngineKind):
    """Our architectures on PyTorch. `auto` takes it for GPUs alone: on CPUs others are faster."""

    name = option = "torch"

    def offer(self, need: Need) -> Offer | Refusal:
        is_wanted = need.settings.engine.engine == self.option
        if refusal := refuse_graph(need) or refuse_unknown(need):
            return refusal
        if not is_wanted and not has_gpu_driver():
            return Refusal("there is no GPU here")
        if find_spec("torch") is None:
            asked = "`--engine torch`: " if is_wanted else ""
            return Refusal(f"{asked}PyTorch 2.12 or newer is not installed", INSTALL)
        found = _offer_on_device(self.name, need)
        if isinstance(found, Offer) and found.device == "cpu" and not is_wanted:
            return Refusal("PyTorch finds no GPU")
        return found

    def make(self, need: Need, offer: Offer) -> Engine:
        from .torch import TorchEngine

        return TorchEngine(need, offer)


class TransformersKind(EngineKind):
    """Models as Transformers has them, on PyTorch: slower, but with our pooling and limits."""

    name = "transformers"
    option = "torch"

    def offer(self, need: Need) -> Offer | Refusal:
        if refusal := refuse_graph(need):
            return refusal
        if need.checkpoint.facts.file is not None:
            return Refusal("it is for models that no file of ours covers", is_others=True)
        if find_spec("torch") is None or find_spec("transformers") is None:
            return Refusal(
                f"config.json: `model_type` is {need.checkpoint.model_type!r}, which is not supported",
                f"{supported()}; others may run by Transformers on PyTorch: pip install torch transformers",
            )
        return _offer_on_device(self.name, need)

    def make(self, need: Need, offer: Offer) -> Engine:
        from .transformers import make_engine

        need.checkpoint.warn(
            logger,
            "No architecture of this server fits `model_type` %r: it is run by Transformers, which is slower",
            need.checkpoint.model_type,
        )
        return make_engine(need, offer)

    def inspect(self, need: Need) -> Network | None:
        from .transformers import inspect

        return inspect(need)


def _offer_on_device(name: str, need: Need) -> Offer | Refusal:
    """What an engine on PyTorch, which is installed, would do on the device that PyTorch finds."""
    options = need.settings.engine
    if options.dtype not in ("auto", *DTYPES):
        hint = "use `--engine native`" if options.dtype == "int16" else "use `--dtype auto`"
        return Refusal(f"`--dtype {options.dtype}`: PyTorch runs {', '.join(DTYPES)} only", hint)
    from . import torch

    device = torch.choose_device()
    if options.streams not in (None, 1):
        logger.warning("`--streams` is ignored: PyTorch runs one batch after the other")
    if options.compile_cache is not None:
        logger.warning("`--compile-cache` is ignored: PyTorch compiles nothing")
    dtype = torch.choose_dtype(options.dtype, device, need.checkpoint.facts)
    return Offer(name, dtype, options.threads, streams=1, device=device)
