"""Other libraries and servers get the same texts, and are counted alike."""

from __future__ import annotations

import json

from bench.load import texts
from bench.peers.process import for_infinity, measurement_of, percentile


def test_a_library_call_counts_for_each_of_its_texts() -> None:
    measured = measurement_of([0.5, 1.0, 0.5], texts=96, tokens=4800)
    assert measured.requests_per_second == 48
    assert measured.tokens_per_second == 2400
    assert (measured.p50_ms, measured.p99_ms) == (500, 1000)
    assert [percentile(range(1, 101), p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]


def test_peers_get_the_same_texts() -> None:
    load = texts.Load("x", 2, [texts.bodies_of(["a"]), texts.bodies_of(["a", "b"])], [3, 6])
    assert [json.loads(body)["input"] for body in for_infinity(load).bodies] == ["a", ["a", "b"]]
