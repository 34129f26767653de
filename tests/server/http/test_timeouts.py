"""The clock that leaves out the time in which the process did not run."""

from __future__ import annotations

from text_embeddings_inference.server.http.timeouts import RunningClock


def test_pauses_are_left_out() -> None:
    times = iter([100.0, 101.0, 102.5, 200.0, 201.0])
    clock = RunningClock(lambda: next(times), step=1.0)
    seen = []
    for _ in range(4):
        clock.tick()
        seen.append(clock.now)
    assert seen == [1.0, 2.5, 4.5, 5.5]
