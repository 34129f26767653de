"""Logs in the two formats of text-embeddings-inference, on top of the standard library's logging.

text:  2026-01-31T12:00:00.123456Z  INFO embed{total_time="1.2ms"}: package.module: package/module.py:12: Success
JSON:  {"timestamp":..., "level":..., "message":..., "target":..., "filename":..., "line_number":..., "span":{...},
       "spans":[{...}]}, and trace_id and span_id before the spans while a traced request is answered

Spans travel in `extra`: `logger.info("Success", extra={"spans": [Span("embed", {...})]})`. A line that is written for
every request goes by `write`, which takes half the time.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import IO, NamedTuple

import orjson

from ..types import Usage
from .log_writer import LogWriter
from .redaction import NO_SECRETS, Secrets
from .tracing import CURRENT

ROOT = __name__.split(".")[0]
PACKAGE_PARENT = f"{Path(__file__).parents[2]}/"

OFF = logging.CRITICAL + 1
TRACE = 5
LEVELS = {
    "off": OFF,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

QUIET = ("asyncio", "filelock", "grpc", "httpcore", "httpx", "opentelemetry", "urllib3")
"""Loggers of others of which only warnings and errors are shown, unless LOG_LEVEL names them."""

PREDECESSORS = ("text_embeddings_router", "text_embeddings_core", "text_embeddings_backend")
"""Names by which LOG_LEVEL knew the parts of text-embeddings-inference; here they all mean this package."""


class Span(NamedTuple):
    """A named piece of work a log line belongs to; the fields come out in the order given, sorted in JSON."""

    name: str
    fields: Mapping[str, str | int] = MappingProxyType({})


UNKNOWN = logging.makeLogRecord({}).__dict__ | dict.fromkeys(
    ("thread", "threadName", "process", "processName", "taskName")
)
"""What every record has, and ours does not look up."""


class _Record(logging.LogRecord):
    """A record made in a third of the time: nothing is looked up that is not shown."""

    def __init__(self, name: str, level: int, message: str, spans: Sequence[Span], frame: FrameType) -> None:
        now, path = time.time(), frame.f_code.co_filename
        self.__dict__ = {
            **UNKNOWN,
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message,
            "created": now,
            "msecs": now % 1 * 1000,
            "pathname": path,
            "filename": path,
            "lineno": frame.f_lineno,
            "spans": spans,
        }


def write(logger: logging.Logger, level: int, message: str, span: Span) -> None:
    """Writes a line, if its level is shown, as the logger's own methods do."""
    if logger.isEnabledFor(level):
        logger.handle(_Record(logger.name, level, message, (span,), sys._getframe(1)))


def request_span(name: str, total: float, usage: Usage) -> Span:
    """The span of an answered request; `total` in seconds."""
    timings = usage.timings
    return Span(
        name,
        {
            "total_time": duration(total),
            "tokenization_time": duration(timings.tokenization),
            "queue_time": duration(timings.queue),
            "inference_time": duration(timings.inference),
            "compute_chars": usage.characters,
            "compute_tokens": usage.tokens,
        },
    )


def duration(seconds: float) -> str:
    """Seconds as Rust shows them: `1.056232ms`, with the largest of s, ms, µs and ns that is not over the value."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds < 1_000:
        return f"{nanoseconds}ns"
    if nanoseconds < 1_000_000:
        text, unit = f"{nanoseconds / 1e3:.3f}", "µs"
    elif nanoseconds < 1_000_000_000:
        text, unit = f"{nanoseconds / 1e6:.6f}", "ms"
    else:
        text, unit = f"{nanoseconds / 1e9:.9f}", "s"
    return text.rstrip("0").rstrip(".") + unit


def configure(formatter: LineFormatter, stream: IO[str] | None, directives: str) -> LogWriter:
    """Send every log of the process to `stream`; called once, by the command line, which flushes it at the end.

    directives: LOG_LEVEL, see `levels`.
    """
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, LogWriter):
            root.removeHandler(old)
            old.close()
    # What no line shows is not looked up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    writer = LogWriter(stream)
    writer.setFormatter(formatter)
    root.addHandler(writer)
    for name, level in levels(directives).items():
        logging.getLogger(name).setLevel(level)
    return writer


def levels(directives: str) -> dict[str, int]:
    """Logger name -> level, `""` for the root.

    directives: `level`, `target` or `target=level`, separated by commas. Without a level for all the rest, the rest is
    silent; the empty string means errors, and what can't be understood means `info`.
    """
    found = {} if directives.strip(", ") else {"": logging.ERROR}
    for directive in filter(None, (part.strip() for part in directives.split(","))):
        target, equals, word = directive.rpartition("=")
        level = LEVELS.get(word.lower())
        if "[" in directive or (equals and level is None):
            return levels("info")
        if level is None:
            target, level = word, TRACE
        name = target.replace("::", ".")
        found[ROOT if name.split(".")[0] in PREDECESSORS else name] = level
    found.setdefault("", OFF)
    return dict.fromkeys(QUIET, max(logging.WARNING, found[""])) | found


LONGEST_TEXT = 1 << 15
"""Characters of a message or of a traceback; what is longer is cut."""
KEPT = 1024
"""How many places in the source, and how many names of fields, are kept as they are shown."""


class LineFormatter(logging.Formatter):
    """What both formats share. A line is written for every request, so what repeats is kept."""

    def __init__(self, secrets: Secrets = NO_SECRETS) -> None:
        super().__init__()
        self._secrets = secrets
        self._second = (-1, "")
        self._place = lru_cache(KEPT)(self._format_place)

    def _format_place(self, target: str, path: str, line: int) -> str:
        """Where an event is from, as its line shows it; target: the logger's name."""
        raise NotImplementedError

    def timestamp(self, record: logging.LogRecord) -> str:
        """UTC with microseconds; the part up to the second is kept, as it seldom changes."""
        second, fraction = divmod(round(record.created * 1e6), 1_000_000)
        kept, text = self._second
        if kept != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        return f"{text}.{fraction:06}Z"

    def clean(self, text: str) -> str:
        """Without secrets, and no longer than `LONGEST_TEXT`."""
        if len(text) <= LONGEST_TEXT:
            return self._secrets.cut(text)
        start = self._secrets.cut(text[: 2 * LONGEST_TEXT])  # more than is shown, so that no secret is cut in two
        return f"{start[:LONGEST_TEXT]}... ({len(text) - LONGEST_TEXT} more characters)"


def _level(record: logging.LogRecord) -> str:
    for word, level in (("ERROR", logging.ERROR), ("WARN", logging.WARNING), ("INFO", logging.INFO)):
        if record.levelno >= level:
            return word
    return "DEBUG" if record.levelno >= logging.DEBUG else "TRACE"


def _filename(path: str) -> str:
    """The source file, without what lies above this package or above `site-packages`."""
    return path.removeprefix(PACKAGE_PARENT).rpartition("site-packages/")[2]


class JsonFormatter(LineFormatter):
    """One object per line, keys in the order of tracing-subscriber."""

    def __init__(self, spans: bool, secrets: Secrets = NO_SECRETS) -> None:
        super().__init__(secrets)
        self._with_spans = spans

    def format(self, record: logging.LogRecord) -> str:
        event = {"message": self.clean(record.getMessage())}
        if record.exc_info:
            event["exception"] = self.clean(self.formatException(record.exc_info))
        line = (
            f'{{"timestamp":"{self.timestamp(record)}","level":"{_level(record)}",{_json(event)[1:-1]}'
            f"{self._place(record.name, record.pathname, record.lineno)}"
        )
        if (trace := CURRENT.get()) is not None:
            line += f',"trace_id":"{trace.id.trace:032x}","span_id":"{trace.id.span:016x}"'
        if self._with_spans and (spans := getattr(record, "spans", ())):
            shown = [_json({**dict(sorted(span.fields.items())), "name": span.name}) for span in spans]
            line += f',"span":{shown[-1]},"spans":[{",".join(shown)}]'
        return line + "}"

    def _format_place(self, target: str, path: str, line: int) -> str:
        return f",{_json({'target': target, 'filename': _filename(path), 'line_number': line})[1:-1]}"


def _json(value: object) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # half a pair of surrogates, as in the name of a file that is not UTF-8
        return json.dumps(value, default=str, separators=(",", ":"))


RESET, BOLD, DIM, ITALIC = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m"
COLORS = {"ERROR": "\x1b[31m", "WARN": "\x1b[33m", "INFO": "\x1b[32m", "DEBUG": "\x1b[34m", "TRACE": "\x1b[35m"}


class TextFormatter(LineFormatter):
    """One line per event; a traceback, if there is one, follows on lines of its own, which are indented."""

    def __init__(self, color: bool, secrets: Secrets = NO_SECRETS) -> None:
        super().__init__(secrets)
        self._color = color
        self._levels = {level: f" {self._paint(style, f'{level:>5}')} " for level, style in COLORS.items()}
        self._colon, self._equals = self._paint(DIM, ":"), self._paint(DIM, "=")
        self._open, self._close = self._paint(BOLD, "{"), self._paint(BOLD, "}")
        self._name = lru_cache(KEPT)(lambda name: self._paint(ITALIC, name) + self._equals)

    def format(self, record: logging.LogRecord) -> str:
        scope = "".join([self._span(span) + self._colon for span in getattr(record, "spans", ())])
        place = self._place(record.name, record.pathname, record.lineno)
        line = (
            f"{self._paint(DIM, self.timestamp(record))}{self._levels[_level(record)]}{scope}{' ' if scope else ''}"
            f"{place}{_printable(self.clean(record.getMessage()))}"
        )
        if not record.exc_info:
            return line
        traceback = self.clean(self.formatException(record.exc_info)).split("\n")
        return "\n    ".join([line, *map(_printable, traceback)])

    def _format_place(self, target: str, path: str, line: int) -> str:
        file, number = self._paint(DIM, _filename(path)), self._paint(DIM, f"{line}:")
        return f"{self._paint(DIM, target)}{self._colon} {file}{self._colon}{number} "

    def _span(self, span: Span) -> str:
        fields = " ".join([self._name(name) + _quoted(value) for name, value in span.fields.items()])
        return self._paint(BOLD, span.name) + (f"{self._open}{fields}{self._close}" if fields else "")

    def _paint(self, style: str, text: str) -> str:
        return f"{style}{text}{RESET}" if self._color else text


def _quoted(value: object) -> str:
    return _printable(_json(value)) if isinstance(value, str) else str(value)


def _printable(message: str) -> str:
    """`message` on one line: what a client sent can't forge a log line or move the cursor of a terminal."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
