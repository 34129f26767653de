"""Writes log lines in a thread of its own, so that whoever logs never waits for whoever reads the logs.

Lines wait in a queue of limited size. What does not fit is dropped, and so is what can't be written (the reader has
gone, the disk is full): the next line that is written says how many were dropped, and the first failure is reported on
stderr.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import IO

MAX_WAITING = 1 << 22
"""Characters of the lines that wait to be written; what comes on top is dropped."""
MAX_WRITE = 1 << 16
"""Characters that are written at a time, if there are several lines."""
GATHER_S = 0.005
"""Seconds after a write in which lines gather: each that wakes the thread takes the interpreter from whoever logs."""
FLUSH_S = 1.0
"""Seconds that the end of the process waits for the last lines to be written."""

logger = logging.getLogger(__name__)


class LogWriter(logging.Handler):
    """Formats records where they are logged, and writes the lines in a thread."""

    def __init__(self, stream: IO[str] | None) -> None:
        """stream: where to; None if the process was started without a stdout: every line is dropped."""
        super().__init__()
        self._write = _writing_to(stream)
        self._queue: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        # Each counter is changed by one thread at a time: the first three by `emit`, under the lock of its caller.
        self._queued = self._refused = self._unformatted = 0
        self._done = self._unwritten = self._reported = 0
        self._is_stuck = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were dropped so far, for whatever reason."""
        return self._refused + self._unformatted + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        if self._queued - self._done + len(line) > MAX_WAITING:
            self._refused += 1
            return
        self._queued += len(line)
        self._queue.put(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Reports the first record that can't be formatted on stderr, in place of a traceback for each."""
        self._unformatted += 1
        if self._unformatted == 1:
            _report(f"a log line can't be formatted, at {record.pathname}:{record.lineno}: {sys.exception()!r}")

    def flush(self) -> None:
        """Waits until all is written, `FLUSH_S` seconds at most; where that was in vain, not a second time."""
        if self._thread.is_alive():
            written = threading.Event()
            self._queue.put(written)
            self._is_stuck = not written.wait(0 if self._is_stuck else FLUSH_S)

    def close(self) -> None:
        """Ends the thread, when all is written; flushes. What is logged later stays in the queue."""
        self.flush()
        self._queue.put(None)
        super().close()

    def _run(self) -> None:
        item: str | threading.Event | None = ""
        while item is not None:
            item = self._queue.get()
            lines, size = [], 0
            while isinstance(item, str):
                lines.append(item)
                size += len(item)
                if size >= MAX_WRITE or self._queue.empty():
                    break
                item = self._queue.get()
            if lines:
                self._write_lines(lines)
                self._done += size
            if isinstance(item, threading.Event):
                item.set()
            elif item is not None:
                time.sleep(GATHER_S)

    def _write_lines(self, lines: list[str]) -> None:
        """Never raises: the thread has to go on."""
        dropped = self.dropped
        text = "".join(lines)
        try:
            if dropped > self._reported:
                text = self._note(dropped - self._reported) + text
            self._write(text.encode("utf-8", "backslashreplace"))
        except Exception as error:
            if not self._unwritten:
                _report(f"logs can't be written to stdout, and are dropped: {error}")
            self._unwritten += len(lines)
        else:
            self._reported = dropped

    def _note(self, dropped: int) -> str:
        """A line that says how many were dropped."""
        if not logger.isEnabledFor(logging.WARNING):
            return ""
        message = "%d log lines were dropped: they could not be written, or not as fast as they came"
        line = sys._getframe().f_lineno
        note = logger.makeRecord(logger.name, logging.WARNING, __file__, line, message, (dropped,), None)
        return self.format(note) + "\n"


class _Descriptor:
    """Writes to an open file past Python's buffer, whose lock a waiting thread would hold at the interpreter's end."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_torn = False  # whether the last line was written in part

    def __call__(self, data: bytes) -> None:
        """Raises OSError."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._number, rest) :]
                    self._is_torn = True
                except BlockingIOError:  # another process that has the same pipe wants it so
                    select.select([], [self._number], [])
        finally:
            self._is_torn = self._is_torn and bool(rest)


def _writing_to(stream: IO[str] | None) -> Callable[[bytes], None]:
    if stream is None:
        return _Descriptor(-1)  # every write fails
    try:
        stream.flush()
        return _Descriptor(stream.fileno())
    except (OSError, ValueError):  # not a file of the system's

        def write(data: bytes) -> None:
            stream.write(data.decode())
            stream.flush()

        return write


def _report(problem: str) -> None:
    """On stderr, if there is one; past Python's buffer, as `_Descriptor`."""
    if sys.__stderr__ is not None:
        with suppress(OSError):  # there is nowhere left to report to
            os.write(2, f"{problem}\n".encode("utf-8", "backslashreplace"))
