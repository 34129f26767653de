"""The scheduler under simulated traffic: how much is padding, how long a text waits behind a large request."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.texts import ragged_lengths
from bench.stress.simulation import Costs, Simulation, beside_a_large_request, closed_loop
from text_embeddings_inference.queueing.scheduler import SHARE

RAGGED = ragged_lengths(2000)


@pytest.mark.parametrize("batch_cost", [15, 36])
@pytest.mark.parametrize("streams", [1, 2])
def test_padding_and_throughput_of_ragged_traffic(streams: int, batch_cost: float) -> None:
    few, many = (
        Simulation(closed_loop(connections, RAGGED), streams=streams, costs=Costs(batch_cost)).run()
        for connections in (8, 64)
    )
    assert few.waste < 1.15
    assert many.waste < 1.09
    assert few.throughput > 0.84 * many.throughput


@pytest.mark.parametrize("streams", [1, 2])
def test_a_text_alone_beside_two_thousand(streams: int) -> None:
    result = Simulation(beside_a_large_request(1, 2000), streams=streams).run()
    assert result.batches > 200
    assert max(result.waits[1]) <= 5
    loner = Simulation(beside_a_large_request(0, 2000), streams=streams).run()
    assert result.times[0][0] < 1.2 * loner.times[0][0], "the large request hardly notices one client"


@pytest.mark.parametrize("streams", [1, 2])
def test_two_thousand_texts_beside_busy_clients(streams: int) -> None:
    result = Simulation(beside_a_large_request(64, 2000), streams=streams).run()
    loner = Simulation(beside_a_large_request(0, 2000), streams=streams).run()
    assert result.times[0][0] < SHARE / 2 * loner.times[0][0], "it gets more than its share: it fills their batches"
    waits = list(itertools.chain.from_iterable(result.waits[client] for client in range(1, 65)))
    assert max(waits) < result.batches / 8


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    large=st.lists(st.integers(1, 300), min_size=1, max_size=400),
    lone=st.integers(1, 300),
    streams=st.integers(1, 3),
)
def test_how_many_batches_a_text_alone_waits(large: list[int], lone: int, streams: int) -> None:
    """Whatever the lengths: one batch that was formed ahead, and those around the inputs of the large request that are
    due before it, one part in `SHARE` of what was taken. The large request gets through.
    """
    singles = ([lone] for _ in itertools.count())
    result = Simulation([[large], singles], streams=streams, max_tokens=512).run()
    assert len(result.times[0]) == 1
    assert max(result.waits.get(1, [0])) <= 3
