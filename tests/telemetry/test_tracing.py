"""Spans of requests and batches, before anything is sent."""

from __future__ import annotations

import pytest

from tests.fakes import FakeClock
from text_embeddings_inference.telemetry.tracing import CURRENT, PARENT, Span, SpanId, Tracer, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = SpanId(int(TRACE, 16), int(SPAN, 16))
EPOCH = 1_700_000_000 * 10**9


class Home:
    """A tracer whose clock is set by hand, and the spans that it exported."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.clock = FakeClock()
        self.clock.advance(1000)
        self.tracer = Tracer(self.spans.append, self.clock, lambda: EPOCH + round(self.clock.now * 1e9))

    def times(self, span: Span) -> tuple[float, float]:
        """Seconds of the clock when it began and ended."""
        return (span.start - EPOCH) / 1e9, (span.end - EPOCH) / 1e9


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.mark.parametrize("text", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"fe-{TRACE}-{SPAN}-01"])
def test_traceparent(text: str) -> None:
    assert parse_traceparent(text) == CALLER


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
    ran, request, *parts = home.spans
    assert (request.name, request.parent, request.attributes) == ("embed", None, {"total_time": "6s"})
    assert (ran.name, ran.parent, ran.attributes, ran.id) == ("batch", None, {"inputs": 1}, batch.id)
    assert [(part.name, *home.times(part)) for part in (ran, request, *parts)] == [
        ("batch", 1003, 1005),
        ("embed", 1000, 1006),
        ("tokenization", 1000, 1001),
        ("queue", 1001, 1003),
        ("inference", 1003, 1005),
    ]
    assert [part.link for part in parts] == [None, None, batch.id]
    assert ran.id.trace != request.id.trace
    assert all(part.parent == request.id and part.id.trace == request.id.trace for part in parts)
    assert len({span.id for span in home.spans}) == 5
    assert all(span.problem is None for span in home.spans)


def test_request_belongs_to_the_trace_of_its_caller(home: Home) -> None:
    token = PARENT.set(CALLER)
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
