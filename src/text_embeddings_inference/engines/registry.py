"""The kinds of engines there are, and which of them runs a model."""

from __future__ import annotations

import logging
from typing import NamedTuple

from ..checkpoint import Static
from ..errors import UnsupportedError
from .base import EngineKind, Need, Offer, Refusal
from .lookup import LookupKind
from .native_kind import NativeKind
from .openvino_kind import OpenVINOKind
from .routed import RoutedKind
from .torch_kinds import TorchKind, TransformersKind

logger = logging.getLogger(__name__)

KINDS: tuple[EngineKind, ...] = (TorchKind(), NativeKind(), OpenVINOKind(), TransformersKind())
"""In order of preference."""


class Choice(NamedTuple):
    """The kind that runs a model."""

    kind: EngineKind
    offer: Offer
    """How it would."""
    passed_over: tuple[str, ...]
    """Why kinds before it are not used, where there is something to do about it."""


def choose(need: Need) -> Choice:
    """The first kind that can run the model without reservation, of those that were asked for, else the first one.

    Raises UnsupportedError with the reasons of all if none can.
    """
    checkpoint = need.checkpoint
    if checkpoint.sides:
        main = _choose(need)
        others = {name: _choose(Need(side, need.settings)) for name, side in checkpoint.sides.items()}
        routed = RoutedKind(main.kind, {name: (choice.kind, choice.offer) for name, choice in others.items()})
        lines = dict.fromkeys(line for choice in (main, *others.values()) for line in choice.passed_over)
        return Choice(routed, main.offer, tuple(lines))
    return _choose(need)


def _choose(need: Need) -> Choice:
    if need.checkpoint.static is Static.WEIGHTS:
        lookup = LookupKind()
        return Choice(lookup, lookup.propose(need), ())
    wanted = need.settings.engine.engine
    refusals: dict[str, Refusal] = {}
    reserved: list[tuple[EngineKind, Offer]] = []
    for kind in (kind for kind in KINDS if wanted in ("auto", kind.option)):
        answer = kind.offer(need)
        if isinstance(answer, Refusal):
            refusals[kind.name] = answer
        elif answer.reservation is None:
            return _chosen(kind, answer, refusals, reserved)
        else:
            reserved.append((kind, answer))
    if reserved:
        return _chosen(*reserved[0], refusals, [])
    raise _nothing_runs(refusals)


def _chosen(
    kind: EngineKind, offer: Offer, refusals: dict[str, Refusal], reserved: list[tuple[EngineKind, Offer]]
) -> Choice:
    """The choice, and why it was made, which is logged too."""
    lines = [f"{other.name} is not used: {theirs.reservation}" for other, theirs in reserved]
    lines += [
        f"{name} is not used: {refusal.reason} ({refusal.hint})"
        for name, refusal in refusals.items()
        if refusal.hint is not None and not refusal.is_others
    ]
    for line in lines:
        logger.info("%s", line)
    return Choice(kind, offer, tuple(lines))


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
