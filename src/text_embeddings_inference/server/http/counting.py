"""How many items the lists of a large body have, before they are decoded."""

from __future__ import annotations

import re

from ...errors import BatchSizeError
from .errors import WRONG_TYPE, RejectedError

FEW = 1 << 10
"""So many items may be decoded whatever the limit is, for then the refusal can tell their number."""
PARTS_PER_ITEM = 16
"""Of JSON, on average: an item is a text, a pair of texts, or an object of some fields."""
MOST_VALUES = 1 << 18
"""Numbers and texts, of all lists together: 32 inputs of 8,192 token ids. Those take 20 ms to decode and to check."""
PART = re.compile(rb'"(?:[^"\\]++|(?:\\.)++)*+"|[\[{]|[\]}]|[^"\[\]{}]++', re.DOTALL)
NUMBERS = re.compile(rb"\s*\[[\s\d,]*+\]?\s*")


def check_items(value: bytes, place: str, most: int) -> None:
    """Raises BatchSizeError where the outermost list of a JSON value has more than `most` items and they are not few,
    RejectedError where it has too many parts or values to be one that is answered. A list of numbers is one item.

    value: well-formed. Costs a millisecond for each megabyte, and half a microsecond for each part up to the limit.
    """
    commas = value.count(b",")
    if commas < FEW:
        return
    if NUMBERS.fullmatch(value):
        _check_values(commas, place)
        return
    counted = max(FEW, most)
    items, values, depth, outermost = 1, 0, 0, 0
    for number, part in enumerate(PART.finditer(value)):
        first = value[part.start()]
        if first in b"[{":
            depth += 1
            outermost = outermost or (depth if first == ord("[") else 0)
        elif first in b"]}":
            if depth == outermost:
                break
            depth -= 1
        elif first != ord('"'):
            commas = part[0].count(b",")
            values += commas
            items += commas if depth == outermost else 0
            if items > counted:
                raise BatchSizeError(f"over {counted}", most)
        if number > PARTS_PER_ITEM * counted:
            raise RejectedError(WRONG_TYPE, f"{place}: more than {number} texts, lists and fields")
    _check_values(values, place)


def _check_values(count: int, place: str) -> None:
    if count > MOST_VALUES:
        raise RejectedError(WRONG_TYPE, f"{place}: more than {MOST_VALUES} values")
