"""An answer on its way out: status, headers and a body in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple, TypeAlias

Header: TypeAlias = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


class Reply(NamedTuple):
    """body: pieces that are sent one after another, so that a long answer needs no copy in one piece."""

    status: int
    headers: tuple[Header, ...]
    body: Sequence[bytes]

    @staticmethod
    def json(body: Sequence[bytes], *, status: int = 200, headers: tuple[Header, ...] = ()) -> Reply:
        return Reply(status, (JSON, *headers), body)

    def head(self, date: bytes, *, close: bool) -> bytes:
        """Status line and headers, as they are sent. date: the value of the header of that name; close: whether the
        connection ends after this answer."""
        headers = [b"%b: %b\r\n" % header for header in self.headers]
        size = sum(map(len, self.body))
        last = b"content-length: %d\r\nconnection: close\r\n\r\n" if close else b"content-length: %d\r\n\r\n"
        return b"%bdate: %b\r\n%b" % (STATUS_LINES[self.status], date, b"".join(headers)) + last % size
