"""python -m bench: see README.md in this folder, or --help."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import machine, report
from bench.engine import Engine
from bench.load import BenchError, Measurement, Wrk, generators
from bench.server import Server, router_command, running, time_to_first_answer
from bench.texts import Load, TextMaker, build_loads

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure and for how long. command: starts the server, or empty if `url` names a running one.

    seconds and warmup: of each load in each round; starts: how often the start is timed; results: None saves nothing.
    """

    model: Path
    command: list[str]
    url: str | None
    seconds: float
    warmup: float
    rounds: int
    starts: int
    results: Path | None


def parse(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the server and the engine.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model; its tokenizer makes the texts")
    parser.add_argument("--url", help="measure this running server; start, memory and CPU time stay unknown")
    parser.add_argument("--command", help="start this in place of text-embeddings-router; it gets --port N")
    parser.add_argument("--server-args", default="", help="further arguments of the server, in one string")
    parser.add_argument("--seconds", type=float, default=10, help="of each load in each round (default: 10)")
    parser.add_argument("--warmup", type=float, default=2, help="seconds before each measurement (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="all loads, one after another, this often (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 3 seconds; saves nothing")
    parser.add_argument("--results", type=Path, default=FOLDER / "results", help="where the report goes")
    parser.add_argument("--no-save", action="store_true", help="only print")
    given = parser.parse_args(arguments)
    command = shlex.split(given.command) if given.command else router_command(str(given.model))
    return Plan(
        model=given.model,
        command=[] if given.url else command + shlex.split(given.server_args),
        url=given.url,
        seconds=3 if given.quick else given.seconds,
        warmup=1 if given.quick else given.warmup,
        rounds=1 if given.quick else given.rounds,
        starts=2 if given.quick else 5,
        results=None if given.quick or given.no_save else given.results,
    )


def measure(plan: Plan) -> report.Report:
    say("making texts")
    loads = build_loads(TextMaker(plan.model))
    start = measure_start(plan, loads[0].bodies[0])
    engine_load = next(load for load in loads if load.name == report.ENGINE_LOAD)
    engine = Engine(str(plan.model), engine_load)
    sgemm: list[float] = []
    rounds: dict[str, list[report.Round]] = {load.name: [] for load in loads}
    alone: list[float] = []
    with server_of(plan) as server, generators(loads, server.url) as wrks:
        for number in range(1, plan.rounds + 1):
            for wrk in wrks:
                say(f"round {number} of {plan.rounds}: {wrk.load.name}")
                sgemm += (samples := machine.sgemm())
                rounds[wrk.load.name].append(measure_round(server, wrk, plan, median(samples)))
                if wrk.load is engine_load:
                    engine.tokens_per_second(plan.warmup / 2)
                    alone.append(engine.tokens_per_second(plan.seconds / 2))
        info = json.loads(server.get("/info"))
        memory = server.memory()
    return report.Report(
        machine=machine.describe(),
        command=shlex.join([Path(plan.command[0]).name, *plan.command[1:]]) if plan.command else f"at {plan.url}",
        info=info,
        sgemm=sgemm,
        rounds=rounds,
        engine=alone,
        start=start,
        memory=memory,
        ceiling=measure_ceiling(loads[1], plan.seconds),
        layer=[measure_layer(plan, load) for load in (loads[1], loads[3])],
    )


def measure_start(plan: Plan, body: bytes) -> list[float]:
    """Seconds to the first answer, several times; one more before them brings the files into memory."""
    if not plan.command:
        return []
    say("timing the start")
    return [time_to_first_answer(plan.command, body) for _ in range(plan.starts + 1)][1:]


def measure_round(server: Server, wrk: Wrk, plan: Plan, sgemm: float) -> report.Round:
    wrk.warm_up(plan.warmup)
    counters, cpu = server.counters(), server.cpu_seconds()
    measurement = wrk.run(plan.seconds)
    cpu_after, memory, counters_after = server.cpu_seconds(), server.memory(), server.counters()
    padding = None
    if counters and counters_after and counters_after.computed > counters.computed:
        asked = counters_after.asked - counters.asked
        padding = 1 - asked / (counters_after.computed - counters.computed)
    return report.Round(
        measurement=measurement,
        sgemm=sgemm,
        server_cores=(cpu_after - cpu) / measurement.seconds if cpu is not None and cpu_after is not None else None,
        padding=padding,
        resident_mb=memory.resident if memory else None,
    )


def measure_ceiling(load: Load, seconds: float) -> Measurement:
    """How fast wrk is when the server has nothing to compute."""
    say("measuring the load generator")
    command = [sys.executable, "-m", "uvicorn", "bench.stand_in:app", "--no-access-log", "--log-level", "warning"]
    with running(command) as stand_in, generators([load], stand_in.url) as (wrk,):
        return wrk.run(min(seconds, 3))


def measure_layer(plan: Plan, load: Load) -> report.LayerCost:
    """What a request costs beside the engine: HTTP, tokenization, queue, rendering."""
    say(f"measuring the server without its engine: {load.name}")
    command = [sys.executable, "-m", "bench.fake_engine", "--model", str(plan.model)]
    with running(command) as server, generators([load], server.url) as (wrk,):
        wrk.warm_up(plan.warmup)
        before = server.cpu_seconds()
        measurement = wrk.run(min(plan.seconds, 3))
        after = server.cpu_seconds()
        assert before is not None, "the server is a process of ours"
        assert after is not None, "the server is a process of ours"
        tokenization = server.mean("te_request_tokenization_duration")
    requests = measurement.requests_per_second * measurement.seconds
    return report.LayerCost(
        load=load.name,
        requests_per_second=measurement.requests_per_second,
        cpu_ms=(after - before) / requests * 1000,
        tokenization_ms=tokenization * 1000,
    )


@contextmanager
def server_of(plan: Plan) -> Iterator[Server]:
    if plan.url:
        yield Server(plan.url)
    else:
        with running(plan.command) as server:
            yield server


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    plan = parse(sys.argv[1:])
    try:
        result = measure(plan)
    except BenchError as error:
        sys.exit(f"error: {error}")
    print(report.render(result))
    if plan.results:
        print(f"saved as {report.save(result, plan.results)} and .json")


if __name__ == "__main__":
    main()
