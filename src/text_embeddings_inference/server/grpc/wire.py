"""Vectors in the wire format of protocol buffers, from NumPy's buffer: no Python float is made.

https://protobuf.dev/programming-guides/encoding: a field is a tag, a length and its bytes, and a message is its fields
one after another.
"""

from __future__ import annotations

from ...types import Float32Array

LENGTH_DELIMITED = 2


def floats(field: int, row: Float32Array) -> bytes:
    """A packed `repeated float` field: little-endian float32."""
    return message(field, row.astype("<f4", copy=False).tobytes()) if row.size else b""


def message(field: int, content: bytes) -> bytes:
    """A field that holds a message, or anything else with a length."""
    return _varint(field << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
