"""A Router module of sentence-transformers (once Asym): several lists of modules, of which each text takes one.

Format: `sentence_transformers.base.modules.Router`: `router_config.json` (of old models `config.json`) has `structure`,
the modules of each route by their folders, `types`, and `parameters`.
"""

from __future__ import annotations

import ast
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError, UnsupportedError
from .json_files import describe, read_object

ROUTER_FILES = ("router_config.json", "config.json")
"""The first that is there describes a Router."""

TASKS = ("query", "document")
"""What sentence-transformers itself calls a text's part."""


class Entry(NamedTuple):
    """A module: its folder, relative to the checkpoint's, and its type."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Routes:
    """What a Router chooses between."""

    modules: dict[str, list[Entry]]
    """Of each route that texts can take, by its name."""
    names: dict[str, str]
    """From what a request may call a text's part (`query`, `document`, a route's own name) to the route."""
    default: str
    """The route of texts of which nothing is said."""


def read_routes(folder: Path, path: str) -> Routes:
    """The routes of the Router in `folder/path`.

    Raises `CheckpointError` for a file that is missing or damaged, `UnsupportedError` where no route is for texts of
    which nothing is said.
    """
    name = next((name for name in ROUTER_FILES if (folder / path / name).exists()), ROUTER_FILES[0])
    name = str(PurePosixPath(path) / name)
    values = read_object(folder, name)
    structure, types, parameters = (values.get(key, {}) for key in ("structure", "types", "parameters"))
    for key, value in (("structure", structure), ("types", types), ("parameters", parameters)):
        if not isinstance(value, dict) or (key != "parameters" and not value):
            raise _damaged(folder, name, f"`{key}` should be an object, is {describe(value)}")
    modules = {}
    for route, ids in structure.items():
        if not isinstance(ids, list) or not ids or not all(isinstance(types.get(id_), str) for id_ in ids):
            raise _damaged(folder, name, f"`structure.{route}` should be a list of keys of `types`, is {describe(ids)}")
        modules[route] = [Entry(str(PurePosixPath(path) / id_) if id_ or path else "", types[id_]) for id_ in ids]
    return _resolve(folder, name, modules, parameters)


def _resolve(folder: Path, name: str, modules: dict[str, list[Entry]], parameters: dict[str, Any]) -> Routes:
    mappings = _mappings(folder, name, parameters.get("route_mappings") or {})
    default = parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True):
        default = next(iter(modules))
    tasks = [task for task, _ in mappings if isinstance(task, str)]
    names = {}
    for task in dict.fromkeys([*modules, *TASKS, *tasks]):
        route = _route(task, mappings, modules)
        if route is not None:
            names[task] = route
    plain = _route(None, mappings, modules) or default
    for route in (plain, *names.values()):
        if route is not None and route not in modules:
            raise _damaged(folder, name, f"there is no route {route!r}: `structure` has {', '.join(modules)}")
    if plain is None:
        raise UnsupportedError(
            f"`{name}` in {folder} has no `default_route`, so texts without a `prompt_name` have none",
            hint=f"set `default_route` there to one of {', '.join(modules)}",
        )
    reached = dict.fromkeys([plain, *names.values()])
    return Routes({route: modules[route] for route in modules if route in reached}, names, plain)


def _route(task: str | None, mappings: dict[tuple[Any, Any], str], modules: dict[str, list[Entry]]) -> str | None:
    """The route of a text in that part, in the Router's own order of precedence."""
    for key in ((task, "text"), (task, None), (None, "text"), (None, None)):
        if key in mappings:
            return mappings[key]
    if task in modules:
        return task
    return "text" if "text" in modules else None


def _mappings(folder: Path, name: str, stored: Any) -> dict[tuple[Any, Any], str]:
    """From (task, modality) to the route; they are stored as Python writes them."""
    found = {}
    if not isinstance(stored, dict):
        raise _damaged(folder, name, f"`route_mappings` should be an object, is {describe(stored)}")
    for key, route in stored.items():
        pair: Any = None
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            pair = ast.literal_eval(key)
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(route, str):
            raise _damaged(folder, name, f"`route_mappings` has {describe(key)}, not a task and a modality")
        if all(part is None or isinstance(part, str) for part in pair):  # others are of several modalities: no texts
            found[pair] = route
    return found


def _damaged(folder: Path, name: str, problem: str) -> CheckpointError:
    return CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
