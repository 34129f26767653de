"""python -m bench: see README.md in this folder, or --help."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench.load.base_shape import write_checkpoint
from bench.load.engine import Engine
from bench.load.measure import ONCE_S, measure_ceiling, measure_layer, measure_load, measure_start, say, seconds_of
from bench.load.server import Server, router_command, running
from bench.load.texts import BATCHES, EQUAL, FIRST, SHORT_32, Load, TextMaker, base_loads, minilm_loads
from bench.load.wrk import BenchError, Wrk, find_wrk, generators
from bench.report import machine, tables
from bench.report.records import BASE, DTYPES, MINILM, OURS, Report, Subject

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure and for how long.

    models: folders by name; dtypes: empty for all that the CPU computes in natively; command: starts another server
    than ours, url: names one that runs (empty: our own); seconds, warmup: of each load in each round; starts: how
    often the start is timed; results: None saves nothing.
    """

    models: dict[str, Path]
    dtypes: tuple[str, ...]
    command: list[str]
    url: str
    server_args: list[str]
    quick: bool
    seconds: float
    warmup: float
    rounds: int
    starts: int
    results: Path | None


def parse(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the server and the engine.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the small model (MiniLM)")
    parser.add_argument("--base", type=Path, help="folder of the BERT-base shape; made with --model's tokenizer")
    parser.add_argument("--dtypes", default="", help="number types, with commas (default: all the CPU computes in)")
    parser.add_argument("--url", default="", help="measure this running server; start and memory stay unknown")
    parser.add_argument("--command", default="", help="start this in place of text-embeddings-router; gets --port N")
    parser.add_argument("--server-args", default="", help="further arguments of the server, in one string")
    parser.add_argument("--seconds", type=float, default=4, help="of each load in each round (default: 4)")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before each measurement (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="all loads, one after another, this often (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 3 seconds; saved only with --results")
    parser.add_argument("--results", type=Path, help=f"where the report goes (default: {FOLDER.name}/results)")
    parser.add_argument("--no-save", action="store_true", help="only print")
    given = parser.parse_args(arguments)
    dtypes = tuple(filter(None, given.dtypes.split(",")))
    if unknown := set(dtypes) - set(DTYPES):
        parser.error(f"--dtypes: no such number type: {', '.join(sorted(unknown))} (there are {', '.join(DTYPES)})")
    results = given.results or (None if given.quick else FOLDER / "results")
    return Plan(
        models={MINILM: given.model} | ({BASE: given.base} if given.base else {}),
        dtypes=dtypes,
        command=shlex.split(given.command),
        url=given.url,
        server_args=shlex.split(given.server_args),
        quick=given.quick,
        seconds=3 if given.quick else given.seconds,
        warmup=1 if given.quick else given.warmup,
        rounds=1 if given.quick else given.rounds,
        starts=2 if given.quick else 5,
        results=None if given.no_save else results,
    )


def measure(plan: Plan) -> Report:
    find_wrk()
    here = machine.describe()
    if BASE in plan.models and not plan.models[BASE].exists():
        say(f"writing {plan.models[BASE]} (438 MB, once)")
        write_checkpoint(plan.models[BASE], plan.models[MINILM])
    dtypes, left_out = choose_dtypes(plan, here)
    subjects: list[Subject] = []
    for model, folder in plan.models.items():
        say(f"{model}: making texts")
        maker = TextMaker(folder)
        loads = minilm_loads(maker) if model == MINILM else base_loads(maker)
        subjects += measure_model(plan, model, loads, dtypes, left_out)
    if not subjects:
        raise BenchError("nothing was measured: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
    by_name = {load.name: load for load in minilm_loads(TextMaker(plan.models[MINILM]))}
    short = min(plan.seconds, 3)
    return Report(
        kind="bench",
        machine=here,
        quick=plan.quick,
        seconds=plan.seconds,
        repetitions=plan.rounds,
        sgemm=[r.sgemm for subject in subjects for rounds in subject.rounds.values() for r in rounds],
        subjects=subjects,
        left_out=left_out,
        ceiling=measure_ceiling(by_name[SHORT_32], short),
        layer=[
            measure_layer(plan.models[MINILM], by_name[name], short, plan.warmup) for name in (SHORT_32, EQUAL, BATCHES)
        ],
    )


def choose_dtypes(plan: Plan, here: machine.Machine) -> tuple[list[str], dict[str, str]]:
    """The number types to measure, and why the others are left out. A server of someone else runs as it runs."""
    if plan.command or plan.url:
        return ["as it is"], {}
    if plan.dtypes:
        return list(plan.dtypes), {dtype: "not asked for" for dtype in DTYPES if dtype not in plan.dtypes}
    reasons = {dtype: machine.missing_for(dtype, here.instruction_sets) for dtype in DTYPES}
    left_out = {dtype: why for dtype, why in reasons.items() if why is not None}
    return [dtype for dtype in DTYPES if dtype not in left_out], left_out


def measure_model(
    plan: Plan, model: str, loads: list[Load], dtypes: list[str], left_out: dict[str, str]
) -> list[Subject]:
    """Every number type under every load, side by side, round by round: the machine's drift meets all alike."""
    contenders = []
    for dtype in dtypes:
        command = command_of(plan, model, dtype)
        shown = shlex.join([Path(command[0]).name, *command[1:]]) if command else f"at {plan.url}"
        subject = Subject(OURS if not plan.command and not plan.url else "other server", model, dtype, "server", shown)
        if command:
            say(f"{model}, {dtype}: timing the start")
            try:
                subject = replace(subject, start=measure_start(command, FIRST, plan.starts))
            except BenchError as error:
                if plan.dtypes or plan.command:
                    raise
                say(f"{model}, {dtype} is left out: {error}")
                left_out[f"{model}, {dtype}"] = f"the server does not start: {str(error).strip().splitlines()[-1]}"
                continue
        contenders.append((subject, command))
    with ExitStack() as stack:
        runs: list[Run] = []
        for subject, command in contenders:
            server = stack.enter_context(running(command)) if command else Server(plan.url)
            wrks = stack.enter_context(generators(loads, server.url))
            alone = subject.name == OURS and model == MINILM
            equal = next((load for load in loads if load.name == EQUAL), None)
            engine = Engine(str(plan.models[model]), subject.dtype, equal) if alone and equal else None
            runs.append(Run(subject, server, wrks, engine))
        for number in range(1, plan.rounds + 1):
            for position in range(len(loads)):
                for run in runs:
                    say(f"{model}, round {number} of {plan.rounds}: {loads[position].name}, {run.subject.dtype}")
                    run.measure(run.wrks[position], plan, number)
        return [
            replace(run.subject, info=json.loads(run.server.get("/info")), memory=run.server.memory()) for run in runs
        ]


@dataclass(frozen=True, slots=True)
class Run:
    """A server that runs, with a generator for each load. engine: the same model in this process."""

    subject: Subject
    server: Server
    wrks: list[Wrk]
    engine: Engine | None

    def measure(self, wrk: Wrk, plan: Plan, number: int) -> None:
        """One load; what it gives goes into the subject."""
        rounds = self.subject.rounds.setdefault(wrk.load.name, [])
        seconds = plan.seconds if plan.quick else seconds_of(wrk.load, plan.seconds, self.subject.rounds)
        if seconds > ONCE_S and number > 1:
            return
        # Whoever is warmed up with a long load would spend as long on what is then thrown away.
        rounds.append(measure_load(self.server, wrk, seconds, 0 if seconds > ONCE_S else plan.warmup))
        if self.engine and wrk.load.name == EQUAL:
            self.engine.tokens_per_second(plan.warmup / 2)
            self.subject.engine.append(self.engine.tokens_per_second(plan.seconds / 2))


def command_of(plan: Plan, model: str, dtype: str) -> list[str]:
    """Starts the server; empty if it runs already."""
    if plan.url:
        return []
    if plan.command:
        return plan.command + plan.server_args
    # Several run at once, and one port for metrics alone would be fought for.
    own = ["--dtype", dtype, "--prometheus-port", "0", *plan.server_args]
    return router_command(str(plan.models[model]), own)


def main() -> None:
    plan = parse(sys.argv[1:])
    tables.run(lambda: measure(plan), plan.results)


if __name__ == "__main__":
    main()
