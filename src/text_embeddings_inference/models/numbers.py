"""The numbers in a config.json that no model can have: they are refused at load, by key and value.

Types are checked by msgspec. What a single architecture asks for beyond this stands in its `Args`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from ..errors import UnsupportedError

LARGEST = 2**31 - 1
"""Sizes, counts and ids are numbers of 32 bits wherever they are used."""

MOST_LAYERS = 10_000
"""Layers that share their weights would be built in any number."""

MAY_BE_ZERO = ("_token_id", "type_vocab_size", "max_window_layers")
"""Ends of keys whose zero means something, though their default is another number."""


def check_numbers(args: type[msgspec.Struct], config: dict[str, Any]) -> None:
    """Raises UnsupportedError for a number in `config` that is out of range, at or below a key that `args` reads.

    Integers are positive, or not below the default where that is not positive; other numbers are finite and positive,
    an `eps` or a fraction is at most 1. Other types than `args` asks for are left to msgspec.
    """
    for field in msgspec.structs.fields(args):
        key = field.encode_name
        for path, number in _numbers(config.get(key), key):
            if path != key:
                if not math.isfinite(number):
                    raise _refused(path, number, "finite")
            elif takes_floats(field.type):
                is_small = "eps" in key or "fraction" in key
                if not 0 < number <= (1 if is_small else sys.float_info.max):
                    raise _refused(key, number, "above 0 and at most 1" if is_small else "finite and above 0")
            elif isinstance(number, int):
                default = field.default if isinstance(field.default, int) else 1
                least = min(default, 0 if key.endswith(MAY_BE_ZERO) else 1)
                most = MOST_LAYERS if "layer" in key else LARGEST
                if not least <= number <= most:
                    raise _refused(key, number, f"between {least} and {most}")


def describe_problem(problem: msgspec.ValidationError, config: dict[str, Any]) -> str:
    """What msgspec says of a value that does not fit, with the key and the value."""
    said, _, place = str(problem).partition(" - at `$.")
    key = place.rstrip("`")
    return f"`{key}` is {json.dumps(config[key])[:60]}: {said}" if key in config else str(problem)


def takes_floats(kind: Any) -> bool:
    """Whether a type is float, or has it among its alternatives."""
    return kind is float or any(map(takes_floats, get_args(kind)))


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """The numbers in a JSON value, and where they are."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from _numbers(item, f"{path}.{key}")
    for item in value if isinstance(value, list) else ():
        yield from _numbers(item, f"{path}[]")


def _refused(key: str, value: float, wanted: str) -> UnsupportedError:
    problem = f"config.json: `{key}` is {json.dumps(value)[:60]}, should be {wanted}"
    return UnsupportedError(problem, hint="the file is damaged: download it again")
