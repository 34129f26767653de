"""Who is measured: our server on each engine and in each number type that says something on this CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.load.texts import EQUAL, LONG_1, RAGGED_32, RAGGED_64, SHORT_1, Load
from bench.report.machine import chosen_dtype, missing_for, openvino_dtype
from bench.report.records import DTYPES, ENGINES

COMPARED = (SHORT_1, EQUAL, RAGGED_64, LONG_1, RAGGED_32)
"""The loads of an engine that stands beside the first one: what all of them would say takes minutes more."""


@dataclass(frozen=True, slots=True)
class Contender:
    """engine: the word of `--engine`; is_beside: it is there for the first engine to be compared with."""

    engine: str
    dtype: str
    is_beside: bool = False

    @property
    def name(self) -> str:
        return ENGINES[self.engine]

    @property
    def arguments(self) -> list[str]:
        """Of the server."""
        return ["--engine", self.engine, "--dtype", self.dtype]

    def loads(self, loads: Sequence[Load]) -> list[Load]:
        return [load for load in loads if not self.is_beside or load.name in COMPARED]


def choose_dtypes(asked: Sequence[str], instruction_sets: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The number types to measure, and why the others are left out. asked: empty for those the goals are about."""
    if asked:
        return list(asked), {dtype: "not asked for" for dtype in DTYPES if dtype not in asked}
    chosen = chosen_dtype(instruction_sets)
    others = {dtype: missing_for(dtype, instruction_sets) for dtype in DTYPES if dtype not in (chosen, "int8")}
    left_out = {dtype: why or f"`auto` takes {chosen} here; `--dtypes` measures it" for dtype, why in others.items()}
    if (why := missing_for("int8", instruction_sets)) is not None:
        left_out["int8"] = why
    return [dtype for dtype in DTYPES if dtype not in left_out], left_out


def contenders(
    engines: Sequence[str], dtypes: Sequence[str], instruction_sets: Sequence[str], *, has_openvino: bool
) -> tuple[list[Contender], dict[str, str]]:
    """Every engine in every number type, the first engine first, and why some are left out."""
    found: dict[Contender, None] = {}
    left_out: dict[str, str] = {}
    for engine in engines:
        if engine == "openvino" and not has_openvino:
            left_out[ENGINES[engine]] = "openvino is not installed"
            continue
        for dtype in dtypes:
            own = openvino_dtype(dtype, instruction_sets) if engine == "openvino" else dtype
            if own != dtype:
                left_out[f"{ENGINES[engine]}, {dtype}"] = f"it does not multiply in it; {own} stands beside it"
            found[Contender(engine, own, is_beside=engine != engines[0])] = None
    return list(found), left_out
