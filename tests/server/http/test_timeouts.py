"""The clock that leaves out the time in which the process did not run."""

from __future__ import annotations

from text_embeddings_inference.server.http.timeouts import RunningClock


def test_pauses_are_left_out() -> None:
    times = iter([100.0, 101.0, 102.5, 200.0, 201.0])
    clock = RunningClock(lambda: next(times), step=1.0)
    assert [(clock.tick(), clock.now) for _ in range(4)] == [(True, 1.0), (True, 2.5), (False, 2.5), (True, 3.5)]
