"""JSON files of a checkpoint, read with errors that name file, line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeGuard, TypeVar

from ..errors import CheckpointError
from .files import MAX_JSON_BYTES, read_file

T_co = TypeVar("T_co", covariant=True)


class Found(NamedTuple, Generic[T_co]):
    """A value and what said so: a file and its key, or a rule."""

    value: T_co
    source: str


def read_json(folder: Path, name: str) -> Any:
    """The content of the JSON file `folder/name`.

    Raises `CheckpointError` when it is missing, no regular file, too large, no UTF-8 or no JSON.
    """
    content = read_file(folder, name, MAX_JSON_BYTES)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: {error.msg} at {place}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: {error}") from error


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Like `read_json`, for files that must hold an object."""
    content = read_json(folder, name)
    if not isinstance(content, dict):
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: expected an object, got {describe(content)}")
    return content


def read_optional_object(folder: Path, name: str) -> dict[str, Any] | None:
    """Like `read_object`; None when there is no such file."""
    return read_object(folder, name) if (folder / name).exists() else None


def describe(value: Any) -> str:
    """`value` as an error message shows it: its JSON, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is an integer (`true` is not)."""
    return isinstance(value, int) and not isinstance(value, bool)
