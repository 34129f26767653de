"""How our own kernels run a model on this machine's CPUs, and where OpenVINO is the faster engine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import StartError
from .base import Engine, EngineKind, Memory, Need, Offer, Refusal, refuse_graph, refuse_unknown

if TYPE_CHECKING:
    from ..native.library import Level

DTYPES = ("float32", "bfloat16", "int16", "int8")
"""That `--dtype` may ask for."""

FASTER_LEVELS = ("avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16")
"""Levels that `auto` takes before OpenVINO: `avx512_bf16` was measured to be as fast or faster, in the mean over loads,
on all models of `python -m bench.engines`, `avx2` on MiniLM (docs/log.md). The others, of the same kernels, not."""


class NativeKind(EngineKind):
    """Our architectures on CPUs, by kernels of our own. `auto` takes it where it was measured to be the faster one."""

    name = option = "native"

    def offer(self, need: Need) -> Offer | Refusal:
        options = need.settings.engine
        if refusal := refuse_graph(need) or refuse_unknown(need):
            return refusal
        if options.dtype not in ("auto", *DTYPES):
            return Refusal(f"`--dtype {options.dtype}`: CPUs run {', '.join(DTYPES)} only", "use `--dtype auto`")
        try:
            level = _level(need)
        except StartError as problem:
            return Refusal(problem.args[0], problem.hint)
        from ..native.formats import choose_dtype

        dtype = choose_dtype(level, options.dtype)
        if dtype is None:
            return Refusal(f"`--dtype {options.dtype}`: this CPU does not compute in it", "use `--dtype auto`")
        reservation = why_slower(level.name) if options.engine == "auto" and _has_openvino() else None
        streams = options.streams or options.threads
        return Offer(self.name, dtype, options.threads, streams, reservation=reservation)

    def make(self, need: Need, offer: Offer) -> Engine:
        from .native import NativeEngine

        return NativeEngine(need, offer, _level(need))

    def memory(self, need: Need, offer: Offer, vocabulary: int | None, stored: int) -> Memory:
        from .native_memory import estimate

        return estimate(need, offer, vocabulary, stored)

    def plan(self, need: Need) -> tuple[str, str] | None:
        from .planned import planned

        if (plan := planned(need)) is None:
            return None
        return f"kernels `{_level(need).name}`; {plan.summary}", plan.steps


def why_slower(level: str) -> str | None:
    """Why OpenVINO is taken before the kernels of the level; None: it is not."""
    if level in FASTER_LEVELS:
        return None
    return f"its kernels `{level}` are slower than OpenVINO, or were never measured beside it"


def _level(need: Need) -> Level:
    """The kernels. Raises StartError where there are none."""
    from ..native.kernels import find_kernels

    return find_kernels(need.settings.engine.cpu_level)


def _has_openvino() -> bool:
    return find_spec("openvino") is not None
