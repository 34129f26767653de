"""Both log formats, character by character, and the directives of LOG_LEVEL."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from text_embeddings_inference.telemetry.logging import (
    OFF,
    TRACE,
    JsonFormatter,
    Span,
    TextFormatter,
    configure,
    duration,
    levels,
    request_span,
    write,
)
from text_embeddings_inference.telemetry.redaction import Secrets
from text_embeddings_inference.types import Timings, Usage

SPAN = request_span("embed", 0.001056232, Usage(21, 7, Timings(0.000219431, 0.000252484, 0.000523817)))


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("package.http", level, "/x/site-packages/package/http.py", 7, message, None, None)
    made.created = 1769860800.123456
    made.__dict__.update(extra)
    return made


def test_text() -> None:
    assert TextFormatter(color=False).format(record("Ready")) == (
        "2026-01-31T12:00:00.123456Z  INFO package.http: package/http.py:7: Ready"
    )


def test_text_with_spans() -> None:
    spans = [Span("outer"), SPAN, Span("inner", {"inputs": 3, "name": 'a"b'})]
    assert TextFormatter(color=False).format(record("Success", spans=spans)) == (
        '2026-01-31T12:00:00.123456Z  INFO outer:embed{total_time="1.056232ms" tokenization_time="219.431µs" '
        'queue_time="252.484µs" inference_time="523.817µs" compute_chars=21 compute_tokens=7}:'
        'inner{inputs=3 name="a\\"b"}: package.http: package/http.py:7: Success'
    )


def test_text_in_color() -> None:
    assert TextFormatter(color=True).format(record("Slow", logging.WARNING)) == (
        "\x1b[2m2026-01-31T12:00:00.123456Z\x1b[0m \x1b[33m WARN\x1b[0m \x1b[2mpackage.http\x1b[0m\x1b[2m:\x1b[0m "
        "\x1b[2mpackage/http.py\x1b[0m\x1b[2m:\x1b[0m\x1b[2m7:\x1b[0m Slow"
    )


def test_text_message_cannot_forge_a_line() -> None:
    line = TextFormatter(color=False).format(record("bad\n2026 INFO fake\x1b[2J é"))
    assert line.endswith(r"bad\n2026 INFO fake\x1b[2J é")


@pytest.mark.parametrize(
    ("level", "word"),
    [(logging.ERROR, "ERROR"), (logging.CRITICAL, "ERROR"), (logging.DEBUG, "DEBUG"), (TRACE, "TRACE")],
)
def test_levels_are_five_wide(level: int, word: str) -> None:
    assert f"Z {word} " in TextFormatter(color=False).format(record("x", level))


def test_time_keeps_up() -> None:
    formatter = TextFormatter(color=False)
    late = record("x")
    late.created = 1769860861.9999999
    formatter.format(record("x"))
    assert formatter.format(late).startswith("2026-01-31T12:01:02.000000Z")


def test_json_keys_in_order() -> None:
    text = JsonFormatter(spans=True).format(record("Success", spans=[Span("outer"), SPAN]))
    span = (
        '{"compute_chars":21,"compute_tokens":7,"inference_time":"523.817µs","queue_time":"252.484µs","tokenization_time":"219.431µs",'
        '"total_time":"1.056232ms","name":"embed"}'
    )
    assert text == (
        '{"timestamp":"2026-01-31T12:00:00.123456Z","level":"INFO","message":"Success","target":"package.http",'
        f'"filename":"package/http.py","line_number":7,"span":{span},"spans":[{{"name":"outer"}},{span}]}}'
    )


def test_json_without_spans() -> None:
    bare = ["timestamp", "level", "message", "target", "filename", "line_number"]
    assert list(json.loads(JsonFormatter(spans=True).format(record("x")))) == bare
    assert list(json.loads(JsonFormatter(spans=False).format(record("x", spans=[SPAN])))) == bare


def test_json_of_what_is_no_unicode() -> None:
    line = JsonFormatter(spans=True).format(record("\udcff"))
    assert json.loads(line)["message"] == "\udcff"


@pytest.mark.parametrize("formatter", [TextFormatter(color=False), JsonFormatter(spans=True)])
def test_long_texts_are_cut(formatter: logging.Formatter) -> None:
    line = formatter.format(record("x" * 1_000_000))
    assert len(line) < 100_000
    assert "(967232 more characters)" in line


@pytest.mark.parametrize("make", [partial(TextFormatter, False), partial(JsonFormatter, True)])
def test_secrets_are_cut_out_of_every_part_of_a_line(make: Callable[[Secrets], logging.Formatter]) -> None:
    try:
        raise RuntimeError("s3cret")
    except RuntimeError as error:
        caught = (type(error), error, error.__traceback__)
    made = record("http://me:s3cret@host and s3cret", logging.ERROR, exc_info=caught)
    line = make(Secrets(["s3cret"])).format(made)
    assert "s3cret" not in line
    assert line.count("***") == 4
    assert "http://***@host" in line


def test_exception_cannot_forge_a_line() -> None:
    try:
        raise RuntimeError("bad\n2026 INFO fake\x1b[2J\x9b")
    except RuntimeError as error:
        caught = (type(error), error, error.__traceback__)
    first, *rest = TextFormatter(color=False).format(record("failed", exc_info=caught)).split("\n")
    assert first.endswith("failed")
    assert rest[-1] == r"    2026 INFO fake\x1b[2J\x9b"
    assert all(line.startswith("    ") for line in rest)


def test_exceptions() -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        caught = (type(error), error, error.__traceback__)
    text = TextFormatter(color=False).format(record("failed", logging.ERROR, exc_info=caught))
    assert text.splitlines()[1] == "    Traceback (most recent call last):"
    event = json.loads(JsonFormatter(spans=True).format(record("failed", logging.ERROR, exc_info=caught)))
    assert event["exception"].endswith("RuntimeError: boom")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ns"),
        (5e-9, "5ns"),
        (5.23817e-4, "523.817µs"),
        (1e-3, "1ms"),
        (1.05e-3, "1.05ms"),
        (1.001, "1.001s"),
        (75, "75s"),
        (9.99999e-4, "999.999µs"),
        (86400.000000001, "86400.000000001s"),
        (10, "10s"),
        (9.9999e-7, "1µs"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        ("info", {"": logging.INFO}),
        ("DEBUG", {"": logging.DEBUG}),
        ("", {"": logging.ERROR}),
        ("off", {"": OFF}),
        ("a.b=debug", {"": OFF, "a.b": logging.DEBUG}),
        ("warn,a=info, b=trace", {"": logging.WARNING, "a": logging.INFO, "b": TRACE}),
        ("nonsense", {"": OFF, "nonsense": TRACE}),
        ("a=nonsense", {"": logging.INFO}),
        ("a[span]=info", {"": logging.INFO}),
        ("text_embeddings_router::http=debug", {"": OFF, "text_embeddings_inference": logging.DEBUG}),
    ],
)
def test_directives(directives: str, expected: dict[str, int]) -> None:
    assert levels(directives).items() >= expected.items()


def test_loggers_of_others_are_quiet_unless_named() -> None:
    assert levels("off")["httpx"] == OFF
    assert levels("debug")["httpx"] == levels("trace")["urllib3"] == logging.WARNING
    assert levels("error")["httpx"] == logging.ERROR
    assert levels("info,httpx=debug")["httpx"] == logging.DEBUG


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log to; afterwards the loggers are as they were."""
    loggers = [logging.getLogger(name) for name in ("", *levels("off"))]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield io.StringIO()
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.parametrize("times", [1, 2])
def test_configure(stream: io.StringIO, times: int) -> None:
    for _ in range(times):
        log = configure(TextFormatter(color=False), stream, "info")
    logger = logging.getLogger("text_embeddings_inference.somewhere")
    logger.debug("not this")
    logger.info("but %s", "this")
    logging.getLogger("httpx").info("nor this")
    log.flush()
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("but this")
    assert "text_embeddings_inference.somewhere: " in line


@pytest.mark.parametrize("as_json", [False, True])
def test_write_is_the_same_as_the_methods_of_a_logger(stream: io.StringIO, as_json: bool) -> None:
    writer = configure(JsonFormatter(spans=True) if as_json else TextFormatter(color=False), stream, "info")
    logger = logging.getLogger("text_embeddings_inference.somewhere")
    slow, fast = partial(logger.error, extra={"spans": [SPAN]}), partial(write, logger, logging.ERROR, span=SPAN)
    for log in (slow, fast):
        log("failed")
    write(logger, logging.DEBUG, "not this", SPAN)
    writer.flush()
    one, other = (line.partition("Z")[2] for line in stream.getvalue().splitlines())
    assert one == other


def test_other_handlers_can_show_what_is_written(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = " ".join(
        f"%({name})s"
        for name in logging.makeLogRecord({}).__dict__
        if name not in ("args", "msg", "exc_info", "exc_text", "stack_info")
    )
    monkeypatch.setattr(caplog.handler, "formatter", logging.Formatter(f"{everything} %(asctime)s %(message)s"))
    with caplog.at_level(logging.INFO):
        write(logging.getLogger("text_embeddings_inference.somewhere"), logging.INFO, "Success", SPAN)
    assert caplog.text.startswith("text_embeddings_inference.somewhere INFO 20 ")
    assert caplog.text.endswith("Success\n")
