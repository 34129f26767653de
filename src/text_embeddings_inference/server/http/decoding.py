"""From the bytes of a body to a typed request, or to a rejection that names the place of the fault.

Lenient where text-embeddings-inference is: unknown fields and what follows the closing brace are ignored. Strict where
it is: a field given twice is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from .errors import MALFORMED_JSON, WRONG_TYPE, RejectedError

S = TypeVar("S", bound=Struct)

BAD_JSON = "Failed to parse the request body as JSON: "
BAD_SHAPE = "Failed to deserialize the JSON body into the target type: "
TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
BYTE = re.compile(r"^(?:JSON is malformed: )?(.*) \(byte (\d+)\)$", re.DOTALL)
PLACE = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)

ENUM_FIELDS = ("truncation_direction", "encoding_format")
"""Fields where anything but a string or an object is a syntax error to text-embeddings-inference (http.md 2.3)."""


class BodyDecoder(Generic[S]):
    """Decodes the bodies of one type."""

    def __init__(self, body_type: type[S]) -> None:
        self.body_type = body_type
        self._decoder = msgspec.json.Decoder(body_type)
        self._names = [b'"%b"' % name.encode() for name in _field_names(body_type)]

    def decode(self, body: bytes, prefix: str = "") -> S:
        """Raises RejectedError; prefix: put before the places it names."""
        try:
            request = self._decode(body)
            if any(body.count(name) > 1 for name in self._names):
                _refuse_duplicates(request, body, prefix)
            return request
        except msgspec.ValidationError as error:
            _reject_shape(str(error), prefix)
        except msgspec.DecodeError as error:
            _reject_syntax(str(error), body)
        except UnicodeDecodeError as error:
            _reject_syntax(f"not UTF-8: {error.reason} (byte {error.start})", body)
        except RecursionError:
            raise RejectedError(MALFORMED_JSON, f"{BAD_JSON}recursion limit exceeded") from None

    def _decode(self, body: bytes) -> S:
        if not body.isascii():
            body.decode()  # msgspec does not look into what it skips
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError as error:
            if end := TRAILING.search(str(error)):
                return self._decoder.decode(body[: int(end[1]) - 1])  # msgspec names the byte after the first of them
            raise


def _field_names(body_type: type[Struct]) -> list[str]:
    """The names of a type's fields and of those of the types within."""
    names = []
    for field in msgspec.structs.fields(body_type):
        names.append(field.name)
        for inner in getattr(field.type, "__args__", (field.type,)):
            if isinstance(inner, type) and issubclass(inner, Struct):
                names += _field_names(inner)
    return names


def _reject_shape(message: str, prefix: str) -> NoReturn:
    match = PLACE.match(message)
    problem, place = (match[1], match[2]) if match else (message, "")
    place = prefix + place
    at = f"{place.rstrip('.')}: " if place else ""
    if place.rpartition(".")[2] in ENUM_FIELDS and problem.startswith("Expected") and "`object`" not in problem:
        raise RejectedError(MALFORMED_JSON, f"{BAD_JSON}{at}{problem}")
    raise RejectedError(WRONG_TYPE, f"{BAD_SHAPE}{at}{problem}")


def _reject_syntax(message: str, body: bytes) -> NoReturn:
    match = BYTE.match(message)
    problem, byte = (match[1], int(match[2])) if match else ("the text ends too early", len(body))
    before = body[:byte]
    line, column = before.count(b"\n") + 1, byte - (before.rfind(b"\n") + 1) + 1
    raise RejectedError(MALFORMED_JSON, f"{BAD_JSON}{problem} at line {line} column {column}")


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, repeated names and all."""


def _refuse_duplicates(request: Struct, body: bytes, prefix: str) -> None:
    """The slow way, taken only if a name stands twice in the text: in the same object, or in different ones?"""
    # Numbers stay text: Python refuses to make integers of thousands of digits, which may stand in unknown fields.
    pairs, _ = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str).raw_decode(body.decode().lstrip())
    _refuse_in(request, pairs, prefix)


def _refuse_in(request: Struct, pairs: _Pairs, prefix: str) -> None:
    seen: set[str] = set()
    for name, value in pairs:
        if name not in request.__struct_fields__:
            continue
        if name in seen:
            raise RejectedError(WRONG_TYPE, f"{BAD_SHAPE}{prefix}{name}: duplicate field `{name}`")
        seen.add(name)
        inner = getattr(request, name)
        if isinstance(inner, Struct) and isinstance(value, _Pairs):
            _refuse_in(inner, value, f"{prefix}{name}.")
