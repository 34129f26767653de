"""How many items the lists of a large body have, before they are decoded."""

from __future__ import annotations

import re

from ...errors import BatchSizeError
from .errors import WRONG_TYPE, RejectedError

FEW = 1 << 10
"""So many items may be decoded whatever the limit is, for then the refusal can tell their number."""
TOKENS_PER_ITEM = 16
"""Of JSON, on average: an item is a text, a pair of texts, or an object of some fields."""
TOKEN = re.compile(rb'"(?:[^"\\]++|(?:\\.)++)*+"|[\[{]|[\]}]|[^"\[\]{}]++', re.DOTALL)
NUMBERS = re.compile(rb"\s*\[[\s\d,]*+\]?\s*")


def check_items(value: bytes, place: str, most: int) -> None:
    """Raises BatchSizeError where the outermost list of a JSON value has more than `most` items and they are not few,
    RejectedError where it has too many parts to be one that is answered. A list of numbers is one item.

    value: well-formed. Costs a millisecond for each megabyte, and half a microsecond for each part up to the limit.
    """
    if value.count(b",") < FEW or NUMBERS.fullmatch(value):
        return
    counted = max(FEW, most)
    items, depth, outermost = 1, 0, 0
    for number, token in enumerate(TOKEN.finditer(value)):
        first = value[token.start()]
        if first in b"[{":
            depth += 1
            outermost = outermost or (depth if first == ord("[") else 0)
        elif first in b"]}":
            if depth == outermost:
                break
            depth -= 1
        elif depth == outermost and first != ord('"'):
            items += token[0].count(b",")
            if items > counted:
                raise BatchSizeError(f"over {counted}", most)
        if number > TOKENS_PER_ITEM * counted:
            raise RejectedError(WRONG_TYPE, f"{place}: more than {number} values, lists and fields")
