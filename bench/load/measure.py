"""One measurement each: a load, the start, the load generator, the server without its engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from bench.load.server import Counters, Server, running, time_to_first_answer
from bench.load.texts import Load
from bench.load.wrk import Measurement, Wrk, generators
from bench.report import machine
from bench.report.records import LayerCost, Round

ANSWERS = 2.2
"""Answers that each connection gets at least, as far as LONGEST_S allows: else p50 would leave the slow ones out."""
LONGEST_S = 60.0
ONCE_S = 15.0
"""A load that needs more than this is measured in one round only."""

SGEMM_TRIES = 3

REST_S = 0.2
RESTING_CORES = 0.2
"""A server that takes less than this share of a core for REST_S has nothing left to do."""


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def seconds_of(load: Load, seconds: float, so_far: dict[str, list[Round]]) -> float:
    """How long to measure a load: `seconds`, or longer where every connection waits long for its answer.

    so_far: what was measured of the same server with other loads, which tells how long that will be.
    """
    rates = [r.measurement.tokens_per_second for rounds in so_far.values() for r in rounds]
    if not rates:
        return seconds
    turn = load.connections * sum(load.tokens) / len(load.tokens) / max(rates)
    return max(seconds, min(ANSWERS * turn, LONGEST_S))


def measure_load(server: Server, wrk: Wrk, seconds: float, warmup: float) -> Round:
    """warmup: seconds of traffic that is not measured; 0 for none."""
    sgemm = measure_sgemm()
    if warmup:
        wrk.warm_up(warmup)
        settle(server)
    counters, cpu = server.counters(), server.cpu_seconds()
    measurement = wrk.run(seconds)
    cpu_after, counters_after = server.cpu_seconds(), server.counters()
    settle(server)
    waste = None
    # Before its first batch a server has not counted anything.
    counters = counters or Counters(0, 0)
    if counters_after and counters_after.asked > counters.asked:
        waste = (counters_after.computed - counters.computed) / (counters_after.asked - counters.asked)
    return Round(
        measurement=measurement,
        sgemm=sgemm,
        server_cores=(cpu_after - cpu) / measurement.seconds if cpu is not None and cpu_after is not None else None,
        waste=waste,
    )


def measure_sgemm() -> float:
    """GFLOP/s: the median of several products, while nothing else runs; they are repeated if something did."""
    for _ in range(SGEMM_TRIES):
        is_quiet = machine.wait_until_quiet()
        rates, was_disturbed = machine.disturbed(machine.sgemm)
        if is_quiet and not was_disturbed:
            return median(rates)
        if not is_quiet:
            break  # nor will it be in the next seconds
    say("something else runs on this machine: sgemm, and what is scaled by it, may be too low")
    return median(rates)


def settle(server: Server) -> None:
    """Waits until a server rests: some go on with requests whose clients have left, which would slow the next one."""
    deadline = time.perf_counter() + LONGEST_S
    while (before := server.cpu_seconds()) is not None and time.perf_counter() < deadline:
        time.sleep(REST_S)
        after = server.cpu_seconds()
        if after is None or after - before < REST_S * RESTING_CORES:
            return


def measure_start(
    command: list[str], load: Load, times: int, path: str = "/embed", env: Mapping[str, str] | None = None
) -> list[float]:
    """Seconds to the first answer, several times; one more before them brings the files into memory."""
    return [time_to_first_answer(command, load.bodies[0], path, env) for _ in range(times + 1)][1:]


def measure_ceiling(load: Load, seconds: float) -> Measurement:
    """How fast wrk is when the server has nothing to compute."""
    say("measuring the load generator")
    command = [sys.executable, "-m", "bench.load.stand_in"]
    with running(command) as stand_in, generators([load], stand_in.url) as (wrk,):
        return wrk.run(seconds)


def measure_layer(model: Path, load: Load, seconds: float, warmup: float) -> LayerCost:
    """What a request costs beside the engine: HTTP, tokenization, queue, rendering."""
    say(f"measuring the server without its engine: {load.name}")
    command = [sys.executable, "-m", "bench.load.fake_engine", "--model", str(model)]
    with running(command) as server, generators([load], server.url) as (wrk,):
        wrk.warm_up(warmup)
        before = server.cpu_seconds()
        measurement = wrk.run(seconds)
        after = server.cpu_seconds()
        assert before is not None, "the server is a process of ours"
        assert after is not None, "the server is a process of ours"
        tokenization = server.mean("te_request_tokenization_duration")
    return LayerCost(
        load=load.name,
        requests_per_second=measurement.requests_per_second,
        cpu_ms=(after - before) / measurement.requests * 1000,
        tokenization_ms=tokenization * 1000,
    )
