"""The C library by ctypes: its structures (csrc/tei.h) and its calls, loaded once per file."""

from __future__ import annotations

import ctypes as c
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StartError
from ..types import BFLOAT16

ABI = 7
"""Of the structures below; the library says the same, or is not ours."""

FORMATS = ("f32", "f32_b16", "bf16", "i16", "i8")
"""How products are computed, by their numbers in C (`tei_format`)."""


class CBuffer(c.Structure):
    _fields_ = [(name, c.c_int32) for name in ("place", "rows", "width", "offset", "half")]


NUMBERS: dict[np.dtype[Any], int] = {np.dtype("<f4"): 0, BFLOAT16: 1, np.dtype("<f2"): 2, np.dtype("<f8"): 3}
"""Types of stored numbers, by their numbers in C (`tei_number`)."""


class CView(c.Structure):
    _fields_ = [(name, c.c_int32) for name in ("buffer", "column", "width")]


class CMatrix(c.Structure):
    _fields_ = [
        *((name, c.c_int32) for name in ("format", "inputs", "outputs", "groups")),
        *((name, c.c_void_p) for name in ("panels", "bias", "scale", "sums")),
        ("norm", c.c_float),
    ]


class CSource(c.Structure):
    _fields_ = [
        ("p", c.c_void_p),
        *((name, c.c_int64) for name in ("row_stride", "column_stride")),
        *((name, c.c_int32) for name in ("type", "rows")),
    ]


STEP_NUMBERS = (
    *("heads", "key_heads", "count", "causal", "window", "reach"),
    *("table_rows", "y_head_stride", "y_step", "by_length", "half", "for_hidden", "table"),
)


class CStep(c.Structure):
    _fields_ = [
        *((name, c.c_int32) for name in ("op", "kind", *STEP_NUMBERS)),
        *((name, c.c_float) for name in ("scale", "eps", "cap")),
        *((name, CView) for name in ("out", "x", "y", "z")),
        *((name, c.c_void_p) for name in ("a", "b", "c")),
    ]


class CStage(c.Structure):
    _fields_ = [(name, c.c_int32) for name in ("first", "count", "rowwise", "rows")]


class CPlan(c.Structure):
    _fields_ = [
        ("steps", c.POINTER(CStep)),
        ("stages", c.POINTER(CStage)),
        ("buffers", c.POINTER(CBuffer)),
        *((name, c.c_int32) for name in ("n_steps", "n_stages", "n_buffers")),
        ("widths", c.c_int32 * 2),
        ("local_width", c.c_int32),
    ]


class CProbe(c.Structure):
    _fields_ = [(name, c.c_void_p) for name in ("rough", "exact", "columns", "rough_values", "exact_values")]


class CBatch(c.Structure):
    _fields_ = [
        *((name, c.c_int32) for name in ("tokens", "sequences", "longest")),
        *((name, c.c_void_p) for name in ("ids", "types", "starts", "attended", "rotations", "pooled", "hidden")),
        ("probes", c.POINTER(CProbe)),
    ]


CALLS: dict[str, tuple[Any, list[Any]]] = {
    "tei_abi": (c.c_int32, []),
    "tei_find_level": (c.c_void_p, [c.c_char_p]),
    "tei_level_name": (c.c_char_p, [c.c_int32]),
    "tei_panel": (c.c_int32, [c.c_void_p]),
    "tei_group": (c.c_int32, [c.c_void_p, c.c_int32]),
    "tei_pack": (
        c.c_int32,
        [c.c_void_p, c.POINTER(CMatrix), c.POINTER(CSource), c.c_int32, c.c_int32, c.POINTER(c.c_float)],
    ),
    "tei_checksum": (c.c_uint64, [c.c_void_p, c.c_size_t]),
    "tei_open": (c.c_void_p, [c.c_void_p, c.POINTER(CPlan)]),
    "tei_close": (None, [c.c_void_p]),
    "tei_team_new": (c.c_void_p, [c.c_int32]),
    "tei_team_free": (None, [c.c_void_p]),
    "tei_run": (c.c_int32, [c.c_void_p, c.POINTER(CBatch), c.c_void_p]),
}
"""Result and arguments of each call. Each runs without the interpreter's lock."""


@cache
def load_library(path: Path) -> c.CDLL:
    """The library of that file. Raises StartError where it can't be loaded or has other structures."""
    try:
        library = c.CDLL(str(path))
    except OSError as problem:
        raise StartError(
            f"can't load the native kernels: {problem}", hint="remove the file, it is built anew"
        ) from None
    for name, (result, arguments) in CALLS.items():
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    if library.tei_abi() != ABI:
        raise StartError(f"{path} is of another version", hint="remove the file, it is built anew")
    return library


class Level:
    """The kernels for one kind of CPU."""

    def __init__(self, library: c.CDLL, name: str) -> None:
        """Raises StartError where this CPU can't run them, or the library does not have them."""
        self.name = name
        self.library = library
        self.pointer = library.tei_find_level(name.encode())
        if not self.pointer:
            found = ", ".join(level_names(library))
            raise StartError(f"no native kernels `{name}` for this CPU", hint=f"there are {found}")
        self.panel: int = library.tei_panel(self.pointer)

    def group(self, format_: str) -> int:
        """Inputs that are multiplied together; 0: it does not compute in this format."""
        group: int = self.library.tei_group(self.pointer, FORMATS.index(format_))
        return group


def level_names(library: c.CDLL) -> list[str]:
    """The levels that this CPU can run, the best one first."""
    names: list[str] = []
    while name := library.tei_level_name(len(names)):
        names.append(name.decode())
    return names
