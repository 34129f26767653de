"""From the bytes of a body to a typed request, or to a rejection that names the place of the fault.

Lenient where text-embeddings-inference is: unknown fields and what follows the closing brace are ignored. Strict where
it is: a field given twice is refused. Of a large body the values are set aside first, and its lists are counted, so
that what is refused costs some milliseconds at most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, get_origin

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from .counting import check_items
from .errors import MALFORMED_JSON, WRONG_TYPE, RejectedError

S = TypeVar("S", bound=Struct)

BAD_JSON = "Failed to parse the request body as JSON: "
BAD_SHAPE = "Failed to deserialize the JSON body into the target type: "
TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
BYTE = re.compile(r"^(?:JSON is malformed: )?(.*) \(byte (\d+)\)$", re.DOTALL)
PLACE = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""The escape of half a character: of a first half (D8 to DB) or of a second one (DC to DF)."""
MOST_SURROGATES = 1 << 12
"""So many escapes are looked at to find one without its other half."""
ESCAPED_LETTER = re.compile(rb"\\u00[5-7][0-9a-fA-F]")
"""A letter of a field's name may be written so, which hides a field that is given twice."""

LARGE = 1 << 14
"""Bytes of a body that is looked at before it is decoded; smaller ones take less than a millisecond."""
SHORT = 1 << 10
"""Bytes of a value in which a field that is given twice is looked for even if the body is large."""
MEMBERS = msgspec.json.Decoder(dict[str, Raw])
ENUM_FIELDS = ("truncation_direction", "encoding_format")
"""Fields where anything but a string or an object is a syntax error to text-embeddings-inference (http.md 2.3)."""


class BodyDecoder(Generic[S]):
    """Decodes the bodies of one type."""

    def __init__(self, body_type: type[S]) -> None:
        self.body_type = body_type
        self._decoder = msgspec.json.Decoder(body_type)
        self._values = _Values(body_type)
        self._names = [b'"%b"' % name.encode() for name in _field_names(body_type)]

    def decode(self, body: bytes, prefix: str = "", *, most_items: int | None = None) -> S:
        """Raises RejectedError, and BatchSizeError where a list of a large body has more than `most_items`.

        prefix: put before the places it names.
        """
        try:
            if not body.isascii():
                body.decode()  # msgspec does not look into what it skips
            outside = body if len(body) < LARGE else self._set_values_aside(body, prefix, most_items)
            request: S = _decode(self._decoder, body)
            if any(outside.count(name) > 1 for name in self._names) or ESCAPED_LETTER.search(outside):
                _refuse_duplicates(request, body if len(body) < LARGE else _shortened(body), prefix)
            return request
        except msgspec.ValidationError as error:
            self._reject_shape(str(error), prefix)
        except msgspec.DecodeError as error:
            _reject_syntax(str(error), body)
        except UnicodeDecodeError as error:
            _reject_syntax(f"not UTF-8: {error.reason} (byte {error.start})", body)
        except RecursionError:
            raise RejectedError(MALFORMED_JSON, f"{BAD_JSON}recursion limit exceeded") from None

    def _set_values_aside(self, body: bytes, prefix: str, most_items: int | None) -> bytes:
        """What is around the values of a body; the values are known to be decoded in little time."""
        values = list(self._values.of(body))
        if most_items is not None:
            for name, value in values:
                check_items(bytes(value), prefix + name, most_items)
        return _without(body, (value for _name, value in values))

    def _reject_shape(self, message: str, prefix: str) -> NoReturn:
        match = PLACE.match(message)
        problem, place = (match[1], match[2]) if match else (message, "")
        field = place.rpartition(".")[2]
        place = prefix + place
        at = f"{place.rstrip('.')}: " if place else ""
        if field in ENUM_FIELDS and problem.startswith("Expected") and "`object`" not in problem:
            raise RejectedError(MALFORMED_JSON, f"{BAD_JSON}{at}{problem}")
        if problem.startswith("Invalid enum value"):
            problem += f": expected {' or '.join(f'`{value}`' for value in _allowed(self.body_type, field))}"
        raise RejectedError(WRONG_TYPE, f"{BAD_SHAPE}{at}{problem}")


class _Values:
    """Finds the values of the fields of a type, as they are written; those of the types within in place of theirs."""

    def __init__(self, body_type: type[Struct]) -> None:
        fields = msgspec.structs.fields(body_type)
        names = [(field.encode_name, Raw | UnsetType, UNSET) for field in fields]
        self._decoder = msgspec.json.Decoder(msgspec.defstruct(f"{body_type.__name__}Values", names))
        self._inner = {field.encode_name: _Values(inner) for field in fields for inner in _structs_in(field.type)}

    def of(self, data: bytes | Raw, prefix: str = "") -> Iterator[tuple[str, Raw]]:
        """Each with its place. They are views of the data. Raises what msgspec does."""
        found = _decode(self._decoder, data)
        for name in found.__struct_fields__:
            value = getattr(found, name)
            if value is UNSET:
                continue
            if name in self._inner and bytes(value).startswith(b"{"):
                yield from self._inner[name].of(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes | Raw) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        if end := TRAILING.search(str(error)):
            return decoder.decode(memoryview(data)[: int(end[1]) - 1])  # msgspec names the byte after the first of them
        raise


def _without(body: bytes, values: Iterable[Raw]) -> bytes:
    """The body with null in place of these values, which are views of it."""
    around, end, start = [], 0, _address(body)
    for value in sorted(values, key=_address):
        first = _address(value) - start
        around.append(body[end:first])
        end = first + len(bytes(value))
    return b"null".join([*around, body[end:]])


def _shortened(body: bytes) -> bytes:
    """The body with null in place of the long values of its object and of the objects in that.

    What is long all the same has too many fields, or long ones twice: raises RejectedError.
    """
    short = _without(body, _long_values(body, levels=2))
    if len(short) > 4 * LARGE:
        raise RejectedError(WRONG_TYPE, f"{BAD_SHAPE}a field is given twice, or there are too many of them")
    return short


def _long_values(data: bytes | Raw, levels: int) -> Iterator[Raw]:
    """Those of an object that are no objects, and of the objects in it, as far as there are levels left."""
    members: dict[str, Raw] = _decode(MEMBERS, data)
    for value in members.values():
        if len(bytes(value)) > SHORT:
            if levels > 1 and bytes(value).startswith(b"{"):
                yield from _long_values(value, levels - 1)
            else:
                yield value


def _structs_in(annotation: Any) -> list[type[Struct]]:
    """The types of objects that a field may hold."""
    options = getattr(annotation, "__args__", (annotation,))
    return [option for option in options if isinstance(option, type) and issubclass(option, Struct)]


def _address(data: bytes | Raw) -> int:
    """Where it lies in memory: a `Raw` is a view of the bytes that it was decoded from."""
    return int(np.frombuffer(data, np.uint8).ctypes.data) if len(bytes(data)) else 0


def _allowed(body_type: type[Struct], name: str) -> tuple[str, ...]:
    """The values of an enumerated field of a type, or of the types within."""
    for field in msgspec.structs.fields(body_type):
        kind = getattr(field.type, "__origin__", field.type)
        if field.name == name and get_origin(kind) is Literal:
            return tuple(get_args(kind))
        for inner in _structs_in(field.type):
            if found := _allowed(inner, name):
                return found
    return ()


def _field_names(body_type: type[Struct]) -> list[str]:
    """The names of a type's fields and of those of the types within."""
    names = []
    for field in msgspec.structs.fields(body_type):
        names.append(field.name)
        for inner in _structs_in(field.type):
            names += _field_names(inner)
    return names


def _reject_syntax(message: str, body: bytes) -> NoReturn:
    match = BYTE.match(message)
    problem, byte = (match[1], int(match[2])) if match else ("the text ends too early", len(body))
    if (match is None or "surrogate" in problem) and (lone := _lone_surrogate(body)):
        problem, byte = f"lone surrogate {lone[0].decode()}, which is no character", lone.start()
    before = body[:byte]
    line, column = before.count(b"\n") + 1, byte - (before.rfind(b"\n") + 1) + 1
    raise RejectedError(MALFORMED_JSON, f"{BAD_JSON}{problem} at line {line} column {column}")


def _lone_surrogate(body: bytes) -> re.Match[bytes] | None:
    """The first escape of half a character without the other half."""
    first_half: re.Match[bytes] | None = None
    for found in islice(SURROGATE.finditer(body), MOST_SURROGATES):
        before = body[max(0, found.start() - SHORT) : found.start()]
        if (len(before) - len(before.rstrip(b"\\"))) % 2:
            continue  # an escaped backslash before a u
        follows = first_half is not None and found.start() == first_half.end()
        is_second_half = found[0][3:4] in b"cdefCDEF"
        if is_second_half and follows:
            first_half = None
        elif first_half is not None or is_second_half:
            return first_half or found
        else:
            first_half = found
    return first_half


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
