"""A client of HTTP/2 that takes no answers: grpcio's own always takes the first 64 KiB. https://www.rfc-editor.org/rfc/rfc9113"""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0x0, 0x1, 0x4
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE = 0x4


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _header(name: bytes, value: bytes) -> bytes:
    """A literal field of HPACK, not indexed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Deaf:
    """A connection whose client has room for no byte of any answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = -1

    @staticmethod
    async def connect(port: int, host: str = "127.0.0.1") -> Deaf:
        connection = Deaf(*await asyncio.open_connection(host, port))
        window = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)
        connection._writer.write(PREFACE + _frame(SETTINGS, 0, 0, window))
        return connection

    def call(self, path: str, *messages: bytes) -> None:
        """Begins a call with these messages and no more."""
        self._stream += 2
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
        headers["content-type"] = "application/grpc"
        block = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
        self._writer.write(_frame(HEADERS, END_HEADERS, self._stream, block))
        content = b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)
        for start in range(0, len(content), 1 << 14):
            self._writer.write(_frame(DATA, 0, self._stream, content[start : start + (1 << 14)]))
        self._writer.write(_frame(DATA, END_STREAM, self._stream, b""))

    async def ended(self) -> None:
        """Waits until the server has ended the connection."""
        try:
            while await self._reader.read(1 << 16):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self._writer.close()
