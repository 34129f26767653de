"""Lines that nobody reads, that can't be written, or can't be formatted: whoever logs is never held up."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from text_embeddings_inference.telemetry import log_writer
from text_embeddings_inference.telemetry.log_writer import LogWriter
from text_embeddings_inference.telemetry.logging import JsonFormatter, TextFormatter


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """The end to read of a pipe, and the one to write."""
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    yield reader, stream
    for end in (stream, os.fdopen(reader)):
        end.close()


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("package.http", logging.INFO, "/x/package/http.py", 7, message, args, None)


def test_nobody_reads(pipe: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "FLUSH_S", 0.01)
    reader, stream = pipe
    writer = LogWriter(stream)
    writer.setFormatter(JsonFormatter(spans=True))
    logged = 0
    while writer.dropped < 3:
        writer.handle(record(f"{logged}:{'x' * 10_000}"))
        logged += 1
    for _ in range(100):
        writer.flush()  # waits for the reader once, and not for long
    writer.handle(record("logged while lines wait"))
    writer.handle(record("last"))
    messages = []
    with open(reader, closefd=False) as lines:
        while not messages or messages[-1] != "last":
            messages.append(json.loads(lines.readline())["message"])
    numbers = [int(message.partition(":")[0]) for message in messages if ":x" in message]
    assert numbers == list(range(logged - 3))
    assert [message for message in messages if "dropped" in message] == [
        "3 log lines were dropped: they could not be written, or not as fast as they came"
    ]
    writer.close()


def test_reader_that_has_gone_is_reported_once(capfd: pytest.CaptureFixture[str]) -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    with open(descriptor, "w") as stream, closing(LogWriter(stream)) as writer:
        for _ in range(3):
            writer.handle(record("x"))
            writer.flush()
        assert writer.dropped == 3
    assert capfd.readouterr().err == "logs can't be written to stdout, and are dropped: [Errno 32] Broken pipe\n"


def test_no_stdout_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(LogWriter(None)) as writer:
        writer.handle(record("x"))
        writer.flush()
        assert writer.dropped == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_full_disk_and_room_again(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    is_full, written = True, io.BytesIO()

    def write(_: int, data: memoryview) -> int:
        if not is_full:
            return written.write(data)
        if len(data) > 5:
            return written.write(data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with open(os.devnull, "w") as stream, closing(LogWriter(stream)) as writer:
        writer.setFormatter(TextFormatter(color=False))
        monkeypatch.setattr(log_writer.os, "write", write)  # type: ignore[attr-defined]  # as the module sees it
        for message in ("lost", "lost too"):
            writer.handle(record(message))
            writer.flush()
        is_full = False
        writer.handle(record("shown"))
        writer.flush()
        monkeypatch.undo()
    *torn, note, shown, end = written.getvalue().decode().split("\n")
    assert "2 log lines were dropped" in note
    assert (shown.endswith("shown"), end) == (True, "")
    assert len(torn) == 3  # each write ended in the middle of a line


def test_record_that_can_not_be_formatted_is_reported_once(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with closing(LogWriter(stream)) as writer:
        for _ in range(3):
            writer.handle(record("%d", "no number"))
        writer.handle(record("shown"))
    assert "shown" in stream.getvalue()
    assert "3 log lines were dropped" in stream.getvalue()
    error = capfd.readouterr().err
    assert error.startswith("a log line can't be formatted, at /x/package/http.py:7: TypeError")
    assert error.count("\n") == 1


PROGRAM = """
import logging, sys
from text_embeddings_inference.telemetry.logging import TextFormatter, configure
log = configure(TextFormatter(color=False), sys.stdout, "info")
for number in range(5000):
    logging.info("%d %s", number, "x" * 1000)
"""


def test_process_ends_though_nobody_reads() -> None:
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)
    os.close(reader)
    assert (done.returncode, done.stderr) == (0, b"")


def test_last_lines_are_written_at_the_end_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 5000
