"""Spans of requests and batches, before anything is sent."""

from __future__ import annotations

import pytest

from tests.fakes import FakeClock
from text_embeddings_inference.errors import SettingsError
from text_embeddings_inference.telemetry.otel_variables import ALL, Sampler
from text_embeddings_inference.telemetry.tracing import CURRENT, PARENT, Caller, Span, SpanId, Tracer, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = SpanId(int(TRACE, 16), int(SPAN, 16))
EPOCH = 1_700_000_000 * 10**9


class Home:
    """A tracer whose clock is set by hand, and the spans that it exported."""

    def __init__(self, sampler: Sampler = ALL) -> None:
        self.spans: list[Span] = []
        self.clock = FakeClock()
        self.clock.advance(1000)
        self.tracer = Tracer(self.spans.append, self.clock, lambda: EPOCH + round(self.clock.now * 1e9), sampler)

    def times(self, span: Span) -> tuple[float, float]:
        """Seconds of the clock when it began and ended."""
        return (span.start - EPOCH) / 1e9, (span.end - EPOCH) / 1e9


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.mark.parametrize(
    ("text", "is_traced"),
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-02", False), (f"fe-{TRACE}-{SPAN}-03", True)],
)
def test_traceparent(text: str, is_traced: bool) -> None:
    assert parse_traceparent(text) == Caller(CALLER, is_traced)


@pytest.mark.parametrize(
    "text",
    [
        *("", "00", f"{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01-more"),
        *(f"ff-{TRACE}-{SPAN}-01", f"0g-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01"),
        *(f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN[1:]}-01", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01\n"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
    ],
)
def test_traceparent_that_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_request_with_its_parts(home: Home) -> None:
    with home.tracer.request("embed") as trace:
        assert CURRENT.get() is trace
        home.clock.advance(1)
        trace.tokenized(1000, 1001)
        home.clock.advance(4)
        batch = home.tracer.batch(1003, {"inputs": 1})
        trace.ran([(batch, 2.0), (batch, 2.0)])
        home.clock.advance(1)
        trace.attributes = {"total_time": "6s"}
    assert CURRENT.get() is None
    request, *parts, ran = home.spans
    assert (request.name, request.parent, request.attributes) == ("embed", None, {"total_time": "6s"})
    assert (ran.name, ran.parent, ran.attributes, ran.id) == ("batch", None, {"inputs": 1}, batch.span.id)
    assert [(part.name, *home.times(part)) for part in home.spans] == [
        ("embed", 1000, 1006),
        ("tokenization", 1000, 1001),
        ("queue", 1001, 1003),
        ("inference", 1003, 1005),
        ("batch", 1003, 1005),
    ]
    assert [part.link for part in parts] == [None, None, batch.span.id]
    assert ran.id.trace != request.id.trace
    assert all(part.parent == request.id and part.id.trace == request.id.trace for part in parts)
    assert len({span.id for span in home.spans}) == 5
    assert all(span.problem is None for span in home.spans)


def test_request_belongs_to_the_trace_of_its_caller(home: Home) -> None:
    token = PARENT.set(Caller(CALLER, is_traced=False))
    with home.tracer.request("embed"):
        pass
    PARENT.reset(token)
    (span,) = home.spans
    assert (span.parent, span.id.trace, span.remote) == (CALLER, CALLER.trace, True)


def test_failure_tells_its_kind_and_not_its_text(home: Home) -> None:
    with pytest.raises(KeyError), home.tracer.request("embed"):
        raise KeyError("private")
    assert home.spans[0].problem == "KeyError"
    assert "private" not in repr(home.spans)
    assert CURRENT.get() is None


def ask(home: Home, caller: Caller | None = None) -> None:
    """A request that is answered from a batch of its own."""
    token = PARENT.set(caller)
    with home.tracer.request("embed") as trace:
        if (current := CURRENT.get()) is not None:
            assert current is trace
            current.ran([(home.tracer.batch(1000, {}), 0.0)])
        else:
            home.tracer.batch(1000, {})
    PARENT.reset(token)


@pytest.mark.parametrize(
    ("sampler", "alone", "in_a_trace", "in_none"),
    [
        ("always_on", 1, 1, 1),
        ("always_off", 0, 0, 0),
        ("parentbased_always_on", 1, 1, 0),
        ("parentbased_always_off", 0, 1, 0),
    ],
)
def test_samplers(sampler: str, alone: int, in_a_trace: int, in_none: int) -> None:
    for expected, caller in ((alone, None), (in_a_trace, Caller(CALLER, True)), (in_none, Caller(CALLER, False))):
        home = Home(Sampler.of({"OTEL_TRACES_SAMPLER": sampler}))
        ask(home, caller)
        assert [span.name for span in home.spans] == ["embed", "queue", "inference", "batch"] * expected


def test_a_share_is_told_by_the_lowest_64_bits_of_the_trace() -> None:
    home = Home(Sampler.of({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}))
    for bits in (0, (1 << 62) - 1, 1 << 62, (1 << 64) - 1):
        ask(home, Caller(SpanId(1 << 64 | bits, 1), True))
    assert [span.id.trace % (1 << 64) for span in home.spans if span.name == "embed"] == [0, (1 << 62) - 1]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_TRACES_SAMPLER": "some"}, "invalid value 'some' for OTEL_TRACES_SAMPLER"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG: a number"),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
            "OTEL_TRACES_SAMPLER_ARG: a number",
        ),
    ],
)
def test_sampler_that_there_is_not(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Sampler.of(environ)


def test_a_batch_is_exported_once_and_where_it_failed_at_once(home: Home) -> None:
    batch = home.tracer.batch(1000, {})
    assert home.spans == []
    for _ in range(2):
        with home.tracer.request("embed") as trace:
            trace.ran([(batch, 0.0)])
    assert [span.name for span in home.spans].count("batch") == 1
    home.tracer.batch(1000, {}, "MemoryError")
    assert home.spans[-1].problem == "MemoryError"
