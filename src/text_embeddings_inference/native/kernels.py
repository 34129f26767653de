"""The kernels for this machine: found or compiled, and tested once before they are used."""

from __future__ import annotations

import logging
from functools import cache
from hashlib import sha256
from pathlib import Path

from ..errors import StartError
from ..machine import cpu_flags, cpu_model
from .build import built_library, cache_folder, levels_here, runnable_levels
from .folder import touch
from .library import Level, level_names, load_library
from .self_test import passes

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "libkernels.so"
"""The library of a wheel, with all levels; a source install compiles its own. Python would import `kernels.so` in place
of this module."""
AUTO, PLAIN = "auto", "plain"
"""Words of `--cpu-level`: the best level, and the one that the others are compared with."""


@cache
def find_kernels(wanted: str = AUTO) -> Level:
    """The level of that name, or the best one that this CPU runs; it computes what the plain one does.

    Raises StartError where there is no such level, or no library and none can be compiled.
    """
    folder = cache_folder()
    path = SHIPPED if SHIPPED.exists() else built_library(folder, _levels(wanted))
    library = load_library(path)
    plain = Level(library, PLAIN)
    for level in [Level(library, name) for name in (level_names(library) if wanted == AUTO else [wanted])]:
        mark = folder / f"{path.stem}-{level.name}-{_tested_as(path)}.tested"
        if level.name == PLAIN or _is_tested(level, plain, mark):
            for used in {path, mark} - {SHIPPED}:
                touch(used)
            return level
        problem = f"the native kernels `{level.name}` do not compute on this CPU what they should"
        if wanted != AUTO:
            raise StartError(problem, hint="use `--cpu-level auto`")
        logger.warning("%s: not used", problem)
    raise StartError(f"{path} has no kernels for this CPU", hint="remove the file, it is built anew")


def _levels(wanted: str) -> dict[str, tuple[str, ...]]:
    """What is compiled for this CPU, the plain level among it. Raises StartError for a level that it can't run."""
    found = runnable_levels(cpu_flags())
    if wanted == AUTO:
        return levels_here(cpu_flags())
    if wanted not in found:
        problem = f"`--cpu-level {wanted}`: this CPU has no such instructions"
        raise StartError(problem, hint=f"there are {', '.join((AUTO, *found))}")
    return {name: found[name] for name in {PLAIN: None, wanted: None}}


def _is_tested(level: Level, plain: Level, mark: Path) -> bool:
    """mark: a file that says that the level was tested on this kind of CPU."""
    if mark.exists():
        return True
    if not passes(level, plain):
        return False
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as problem:
        logger.debug("%s can't be written, the kernels are tested at each start: %s", mark, problem)
    return True


def _tested_as(library: Path) -> str:
    """The library's content, for that of a wheel has the same name in each version, and the kind of CPU."""
    return sha256(library.read_bytes() + cpu_model().encode()).hexdigest()[:8]
