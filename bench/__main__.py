"""python -m bench: see README.md in this folder, or --help."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from bench.contenders import Contender, choose_dtypes, contenders
from bench.engines.beside import measure_beside
from bench.load.base_shape import write_checkpoint
from bench.load.engine import Engine
from bench.load.measure import ONCE_S, measure_ceiling, measure_layer, measure_load, measure_start, say, seconds_of
from bench.load.peak import peaks
from bench.load.server import Server, router_command, running
from bench.load.texts import BATCHES, EQUAL, FIRST, SHORT_32, Load, TextMaker, base_loads, minilm_loads
from bench.load.wrk import BenchError, Wrk, find_wrk, generators
from bench.report import machine, tables
from bench.report.records import BASE, DTYPES, ENGINES, MINILM, Report, Subject

FOLDER = Path(__file__).parent
IN_PROCESS_S = 2.0
"""For each load of two engines in process."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure and for how long.

    models: folders by name; dtypes: empty for those that the goals are about; engines: words of `--engine`, the first
    one is whom the others are compared with; command: starts another server than ours, url: names one that runs
    (empty: our own); seconds, warmup: of each load in each round; starts: how often the start is timed; results: None
    saves nothing.
    """

    models: dict[str, Path]
    dtypes: tuple[str, ...]
    engines: tuple[str, ...]
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
    parser.add_argument("--dtypes", default="", help="number types, with commas (default: what auto takes, and int8)")
    parser.add_argument("--engines", default="auto,openvino", help=f"of {', '.join(ENGINES)} (default: %(default)s)")
    parser.add_argument("--url", default="", help="measure this running server; start and memory stay unknown")
    parser.add_argument("--command", default="", help="start this in place of text-embeddings-router; gets --port N")
    parser.add_argument("--server-args", default="", help="further arguments of the server, in one string")
    parser.add_argument("--seconds", type=float, default=3, help="of each load in each round (default: 3)")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before each measurement (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="all loads, one after another, this often (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 3 seconds; saved only with --results")
    parser.add_argument("--results", type=Path, help=f"where the report goes (default: {FOLDER.name}/results)")
    parser.add_argument("--no-save", action="store_true", help="only print")
    given = parser.parse_args(arguments)
    dtypes = tuple(filter(None, given.dtypes.split(",")))
    if unknown := set(dtypes) - set(DTYPES):
        parser.error(f"--dtypes: no such number type: {', '.join(sorted(unknown))} (there are {', '.join(DTYPES)})")
    engines = tuple(filter(None, given.engines.split(",")))
    if not engines or set(engines) - set(ENGINES):
        parser.error(f"--engines: {given.engines!r} are not all engines (there are {', '.join(ENGINES)})")
    results = given.results or (None if given.quick else FOLDER / "results")
    return Plan(
        models={MINILM: given.model} | ({BASE: given.base} if given.base else {}),
        dtypes=dtypes,
        engines=engines,
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
    choices, left_out = choose(plan, here)
    subjects: list[Subject] = []
    for model, folder in plan.models.items():
        say(f"{model}: making texts")
        maker = TextMaker(folder)
        loads = minilm_loads(maker) if model == MINILM else base_loads(maker)
        of_model = measure_model(plan, model, loads, choices, left_out)
        compare_engines(plan, model, of_model, here, left_out)
        subjects += of_model
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


def choose(plan: Plan, here: machine.Machine) -> tuple[list[Contender | None], dict[str, str]]:
    """Whom to measure, and why others are left out. None: a server of someone else, which runs as it runs."""
    if plan.command or plan.url:
        return [None], {}
    sets = here.instruction_sets
    dtypes, left_out = choose_dtypes(plan.dtypes, sets)
    choices, of_engines = contenders(plan.engines, dtypes, sets, has_openvino=find_spec("openvino") is not None)
    return [*choices], left_out | of_engines


def measure_model(
    plan: Plan, model: str, loads: list[Load], choices: list[Contender | None], left_out: dict[str, str]
) -> list[Subject]:
    """Every contender under every load, side by side, round by round: the machine's drift meets all alike."""
    started: list[tuple[Contender | None, Subject, list[str]]] = []
    for choice in choices:
        command = command_of(plan, model, choice)
        try:
            started.append((choice, subject_of(plan, model, choice, command), command))
        except BenchError as error:
            if plan.dtypes or plan.command:
                raise
            what = f"{model}, {choice.name}, {choice.dtype}" if choice else model
            say(f"{what} is left out: {error}")
            left_out[what] = f"the server does not start: {str(error).strip().splitlines()[-1]}"
    with ExitStack() as stack:
        runs: list[Run] = []
        for choice, subject, command in started:
            server = stack.enter_context(running(command)) if command else Server(plan.url)
            own = choice.loads(loads) if choice else loads
            wrks = stack.enter_context(generators(own, server.url))
            runs.append(Run(subject, server, {wrk.load.name: wrk for wrk in wrks}, engine_of(plan, model, choice, own)))
        for number in range(1, plan.rounds + 1):
            for load in loads:
                for run in runs:
                    if load.name in run.wrks:
                        say(f"{model}, round {number} of {plan.rounds}: {load.name}, {run.subject.label}")
                        run.measure(run.wrks[load.name], plan, number)
        return [
            replace(run.subject, info=json.loads(run.server.get("/info")), memory=run.server.memory()) for run in runs
        ]


def subject_of(plan: Plan, model: str, choice: Contender | None, command: list[str]) -> Subject:
    """With its start timed. Raises BenchError where the server does not start."""
    name, dtype = (choice.name, choice.dtype) if choice else ("other server", "as it is")
    shown = shlex.join([Path(command[0]).name, *command[1:]]) if command else f"at {plan.url}"
    subject = Subject(name, model, dtype, "server", shown)
    if not command:
        return subject
    say(f"{model}, {subject.label}: timing the start")
    return replace(subject, start=measure_start(command, FIRST, plan.starts))


def engine_of(plan: Plan, model: str, choice: Contender | None, loads: list[Load]) -> Engine | None:
    """The small model in this process, as the first engine has it."""
    equal = next((load for load in loads if load.name == EQUAL), None)
    if choice is None or choice.is_beside or model != MINILM or equal is None:
        return None
    return Engine(str(plan.models[model]), choice.engine, choice.dtype, equal)


def compare_engines(
    plan: Plan, model: str, subjects: list[Subject], here: machine.Machine, left_out: dict[str, str]
) -> None:
    """The native engine beside OpenVINO in process: goes into the subjects of the first engine, by number type."""
    if "openvino" not in plan.engines[1:] or find_spec("openvino") is None or plan.command or plan.url:
        return
    machine.wait_until_quiet()
    seconds = 0.0 if plan.quick else IN_PROCESS_S
    with peaks(here.cores) as loops:
        for subject in (subject for subject in subjects if subject.name == ENGINES[plan.engines[0]]):
            dtypes = subject.dtype, machine.openvino_dtype(subject.dtype, here.instruction_sets)
            # One core would take too long for the large model.
            for threads in sorted({1, here.cores} if model == MINILM else {here.cores}):
                say(f"{model}, {subject.dtype}: the engines in process, threads: {threads}")
                found = measure_beside(model, plan.models[model], dtypes, threads, loops, seconds)
                if isinstance(found, str):
                    left_out[f"{model}, {subject.dtype}, in process"] = found
                else:
                    subject.in_process.extend(found)


@dataclass(frozen=True, slots=True)
class Run:
    """A server that runs, with a generator for each load. engine: the same model in this process."""

    subject: Subject
    server: Server
    wrks: dict[str, Wrk]
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


def command_of(plan: Plan, model: str, choice: Contender | None) -> list[str]:
    """Starts the server; empty if it runs already."""
    if plan.url:
        return []
    if choice is None:
        return plan.command + plan.server_args
    # Several run at once, and one port for metrics alone would be fought for.
    own = [*choice.arguments, "--prometheus-port", "0", *plan.server_args]
    return router_command(str(plan.models[model]), own)


def main() -> None:
    plan = parse(sys.argv[1:])
    tables.run(lambda: measure(plan), plan.results)


if __name__ == "__main__":
    main()
