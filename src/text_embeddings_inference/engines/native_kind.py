"""How our own kernels run a model on this machine's CPUs."""

from __future__ import annotations

from ..errors import StartError
from .base import Engine, EngineKind, Need, Offer, Refusal, refuse_graph, refuse_unknown

DTYPES = ("float32", "bfloat16", "int16", "int8")
"""That `--dtype` may ask for."""


class NativeKind(EngineKind):
    """Our architectures on CPUs, by kernels of our own. `auto` does not take it: a start must not need a compiler."""

    name = option = "native"

    def offer(self, need: Need) -> Offer | Refusal:
        options = need.settings.engine
        if options.engine != self.option:
            return Refusal("it is taken only where it is asked for", is_others=True)
        if refusal := refuse_graph(need) or refuse_unknown(need):
            return refusal
        from ..native.formats import choose_dtype
        from ..native.kernels import find_kernels

        if options.dtype not in ("auto", *DTYPES):
            return Refusal(f"`--dtype {options.dtype}`: CPUs run {', '.join(DTYPES)} only", "use `--dtype auto`")
        try:
            level = find_kernels()
        except StartError as problem:
            return Refusal(str(problem), problem.hint)
        dtype = choose_dtype(level, options.dtype)
        if dtype is None:
            return Refusal(f"`--dtype {options.dtype}`: this CPU does not compute in it", "use `--dtype auto`")
        return Offer(self.name, dtype, options.threads, options.streams or options.threads)

    def make(self, need: Need, offer: Offer) -> Engine:
        from ..native.kernels import find_kernels
        from .native import NativeEngine

        return NativeEngine(need, offer, find_kernels())
