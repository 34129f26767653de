"""The API keys, whatever protocol they come by."""

from __future__ import annotations

import hmac
from collections.abc import Iterable


class Keys:
    """The API keys; each comparison takes the same time wherever the texts differ."""

    def __init__(self, keys: Iterable[str]) -> None:
        """An empty key matches nothing: it locks everybody out. No keys at all let everybody in."""
        given = list(keys)
        self.required = bool(given)
        self._accepted = [f"Bearer {key}".encode() for key in given if key]

    def accept(self, authorization: bytes) -> bool:
        """Whether what was sent as `authorization` is one of the keys."""
        # A list, not a generator: all keys are compared, whichever fits.
        return any([hmac.compare_digest(authorization, key) for key in self._accepted])  # noqa: C419
