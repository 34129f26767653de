"""The kinds of engines there are, and which of them runs a model."""

from __future__ import annotations

import logging

from ..errors import UnsupportedError
from .base import EngineKind, Need, Offer, Refusal
from .native_kind import NativeKind
from .openvino_kind import OpenVINOKind
from .torch_kinds import TorchKind, TransformersKind

logger = logging.getLogger(__name__)

KINDS: tuple[EngineKind, ...] = (TorchKind(), OpenVINOKind(), NativeKind(), TransformersKind())
"""In order of preference."""


def choose(need: Need) -> tuple[EngineKind, Offer]:
    """The first kind that can run the model, of those that were asked for, and how it would.

    Raises UnsupportedError with the reasons of all if none can.
    """
    wanted = need.settings.engine.engine
    refusals: dict[str, Refusal] = {}
    for kind in (kind for kind in KINDS if wanted in ("auto", kind.option)):
        answer = kind.offer(need)
        if isinstance(answer, Offer):
            for name, refusal in refusals.items():
                if refusal.hint is not None:
                    logger.info("%s is not used: %s (%s)", name, refusal.reason, refusal.hint)
            return kind, answer
        refusals[kind.name] = answer
    raise _nothing_runs(refusals)


def _nothing_runs(refusals: dict[str, Refusal]) -> UnsupportedError:
    """The reasons, each once, with the names of those that gave it if there are several."""
    told = {name: refusal for name, refusal in refusals.items() if not refusal.is_others} or refusals
    names: dict[str, list[str]] = {}
    for name, refusal in told.items():
        names.setdefault(refusal.reason, []).append(name)
    hints = dict.fromkeys(refusal.hint for refusal in told.values() if refusal.hint is not None)
    problem = next(iter(names))
    if len(names) > 1:
        lines = [f"{' and '.join(kinds)}: {reason}" for reason, kinds in names.items()]
        problem = "\n".join(["no engine can run this model as asked:", *lines])
    return UnsupportedError(problem, hint="; ".join(hints) or None)
