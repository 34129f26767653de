"""What `/tokenize` shows of a text's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tokenizers

from ..types import Token


def shown_tokens(encoding: tokenizers.Encoding, text: str) -> list[Token]:
    """The tokens of the text, as they were typed, with places in its bytes; special ones have none."""
    byte_at = _byte_offsets(text)
    return [
        Token(id_, token, True, None, None)
        if special
        else Token(id_, text[start:stop], False, byte_at[start], byte_at[stop])
        for id_, token, special, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        )
    ]


def _byte_offsets(text: str) -> Sequence[int]:
    """For each place between characters, the number of UTF-8 bytes before it."""
    if text.isascii():
        return range(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    offsets: list[int] = np.concatenate(([0], np.cumsum(widths))).tolist()
    return offsets
