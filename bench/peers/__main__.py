"""python -m bench.peers: this server and what else installs from PyPI, in one run. See bench/README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from bench.contenders import Contender as Choice
from bench.contenders import contenders
from bench.load.base_shape import write_checkpoint
from bench.load.measure import ONCE_S, measure_load, measure_sgemm, measure_start, say, seconds_of
from bench.load.server import Memory, Server, router_command, running
from bench.load.texts import BATCHES, FIRST, Load, TextMaker, base_loads, minilm_loads
from bench.load.wrk import BenchError, Wrk, find_wrk, generators
from bench.peers.process import (
    INFINITY_PATH,
    OFFLINE,
    Library,
    for_infinity,
    infinity_command,
    library,
    library_start,
)
from bench.report import machine, tables
from bench.report.records import BASE, DTYPES, MINILM, Report, Round, Subject

FOLDER = Path(__file__).parents[1]
LIBRARIES = {
    # What it is called in tables, and the packages that its speed comes from, what computes last.
    "torch-float32": ("sentence-transformers, torch", ("sentence-transformers", "transformers", "torch")),
    "torch-bfloat16": ("sentence-transformers, torch", ("sentence-transformers", "transformers", "torch")),
    "openvino": ("sentence-transformers, OpenVINO", ("sentence-transformers", "optimum-intel", "openvino")),
    "onnxruntime": ("ONNX Runtime", ("tokenizers", "onnxruntime")),
}
INFINITY = ("infinity", ("infinity-emb", "sentence-transformers", "transformers", "torch"))


@dataclass(frozen=True, slots=True)
class Plan:
    """venvs: folder with the environments `libraries` and `infinity`, and with what is exported of the models."""

    models: dict[str, Path]
    venvs: Path
    dtypes: tuple[str, ...]
    quick: bool
    seconds: float
    warmup: float
    rounds: int
    results: Path | None


class Runner(Protocol):
    """A contender that runs."""

    def measure(self, load: Load, seconds: float, warmup: float) -> Round: ...

    def close(self, subject: Subject) -> Subject:
        """The subject with what is known at the end."""
        ...


@dataclass(frozen=True, slots=True)
class ServerRunner:
    server: Server
    wrks: dict[str, Wrk]

    def measure(self, load: Load, seconds: float, warmup: float) -> Round:
        return measure_load(self.server, self.wrks[load.name], seconds, warmup)

    def close(self, subject: Subject) -> Subject:
        info = json.loads(self.server.get("/info")) if subject.is_ours else {}
        return replace(subject, info=info, memory=self.server.memory())


@dataclass(slots=True)
class LibraryRunner:
    peer: Library
    dtype: str = ""

    def measure(self, load: Load, seconds: float, warmup: float) -> Round:
        sgemm = measure_sgemm()
        if warmup:
            self.peer.run(load, warmup)
        measurement, self.dtype = self.peer.run(load, seconds)
        return Round(measurement, sgemm, server_cores=None, waste=None)

    def close(self, subject: Subject) -> Subject:
        memory: Memory = self.peer.memory()
        return replace(subject, dtype=self.dtype, memory=memory)


def parse(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="Measures this server and others.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the small model (MiniLM)")
    parser.add_argument("--base", type=Path, help="folder of the BERT-base shape; made with --model's tokenizer")
    parser.add_argument("--venvs", type=Path, required=True, help="folder of the environments that make built")
    parser.add_argument("--dtypes", default="", help="our number types, with commas (default: all the CPU computes in)")
    parser.add_argument("--seconds", type=float, default=3, help="of each load in each round (default: 3)")
    parser.add_argument("--rounds", type=int, default=2, help="all loads, one after another, this often (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one round of 1 second; saved only with --results")
    parser.add_argument("--results", type=Path, help=f"where the report goes (default: {FOLDER.name}/results)")
    given = parser.parse_args(arguments)
    return Plan(
        models={MINILM: given.model.absolute()} | ({BASE: given.base.absolute()} if given.base else {}),
        venvs=given.venvs.absolute(),
        dtypes=tuple(filter(None, given.dtypes.split(","))),
        quick=given.quick,
        seconds=1 if given.quick else given.seconds,
        warmup=0 if given.quick else 1,
        rounds=1 if given.quick else given.rounds,
        results=given.results or (None if given.quick else FOLDER / "results"),
    )


def measure(plan: Plan) -> Report:
    find_wrk()
    here = machine.describe()
    if BASE in plan.models and not plan.models[BASE].exists():
        say(f"writing {plan.models[BASE]} (438 MB, once)")
        write_checkpoint(plan.models[BASE], plan.models[MINILM])
    missing = {dtype: machine.missing_for(dtype, here.instruction_sets) for dtype in DTYPES}
    left_out = {dtype: why for dtype, why in missing.items() if why and dtype not in plan.dtypes}
    dtypes = plan.dtypes or tuple(dtype for dtype in DTYPES if dtype not in left_out)
    choices, left_out = choose(dtypes, here, left_out)
    subjects: list[Subject] = []
    for model, folder in plan.models.items():
        prepare(plan, model, folder)
        maker = TextMaker(folder)
        loads = minilm_loads(maker) if model == MINILM else base_loads(maker)
        loads = [load for load in loads if load.name != BATCHES]
        subjects += measure_model(plan, model, loads, choices, left_out)
    return Report(
        kind="peers",
        machine=here,
        quick=plan.quick,
        seconds=plan.seconds,
        repetitions=plan.rounds,
        sgemm=[r.sgemm for subject in subjects for rounds in subject.rounds.values() for r in rounds],
        subjects=subjects,
        left_out=left_out,
    )


def choose(
    dtypes: Sequence[str], here: machine.Machine, left_out: dict[str, str]
) -> tuple[list[Choice], dict[str, str]]:
    """This server as `auto` has it in these number types, and on OpenVINO in the one that `auto` takes."""
    has_openvino, sets = find_spec("openvino") is not None, here.instruction_sets
    ours, _ = contenders(("auto",), dtypes, sets, has_openvino=has_openvino)
    both, missing = contenders(("auto", "openvino"), [machine.chosen_dtype(sets)], sets, has_openvino=has_openvino)
    return [*ours, *(choice for choice in both if choice.is_beside)], left_out | missing


def prepare(plan: Plan, model: str, folder: Path) -> None:
    """Exports the model for OpenVINO and ONNX Runtime, once."""
    exported = plan.venvs / "models" / folder.name
    if not all((exported / form).exists() for form in ("openvino", "onnx")):
        say(f"{model}: exporting it for OpenVINO and ONNX Runtime (once)")
    command = [str(python_of(plan, "libraries")), str(FOLDER / "peers" / "prepare.py"), str(folder), str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OFFLINE)
    if done.returncode:
        raise BenchError(f"can't export {folder}:\n{done.stderr[-3000:]}")


def python_of(plan: Plan, venv: str) -> Path:
    return plan.venvs / venv / "bin" / "python"


def measure_model(
    plan: Plan, model: str, loads: list[Load], choices: Sequence[Choice], left_out: dict[str, str]
) -> list[Subject]:
    """Every contender under every load, side by side, round by round: the machine's drift meets all alike."""
    with ExitStack() as stack:
        all_of_them = [started(plan, model, choice, loads, stack, left_out) for choice in choices]
        all_of_them += [started_library(plan, model, kind, loads, stack, left_out) for kind in LIBRARIES]
        all_of_them.append(started_infinity(plan, model, loads, stack, left_out))
        running_ones = [contender for contender in all_of_them if contender is not None]
        for number in range(1, plan.rounds + 1):
            for load in loads:
                for subject, runner in running_ones:
                    seconds = plan.seconds if plan.quick else seconds_of(load, plan.seconds, subject.rounds)
                    if seconds > ONCE_S and number > 1:
                        continue
                    say(f"{model}, round {number} of {plan.rounds}: {load.name}, {subject.label}")
                    # One call answers all connections of a library: it need not be repeated for a second answer.
                    least = plan.seconds if subject.how == "in process" else seconds
                    warmup = 0 if seconds > ONCE_S else plan.warmup
                    subject.rounds.setdefault(load.name, []).append(runner.measure(load, least, warmup))
        return [runner.close(subject) for subject, runner in running_ones]


Contender = tuple[Subject, Runner]


def started(
    plan: Plan, model: str, choice: Choice, loads: list[Load], stack: ExitStack, left_out: dict[str, str]
) -> Contender | None:
    """This server, on one engine."""
    name, dtype = choice.name, choice.dtype
    say(f"{model}: starting {name}, {dtype}")
    command = router_command(str(plan.models[model]), [*choice.arguments, "--prometheus-port", "0"])
    shown = show(command)
    try:
        start = measure_start(command, FIRST, 1)
        server = stack.enter_context(running(command))
    except BenchError as error:
        skip(f"{name}, {dtype}", error, left_out)
        return None
    wrks = stack.enter_context(generators(loads, server.url))
    runner = ServerRunner(server, {wrk.load.name: wrk for wrk in wrks})
    return Subject(name, model, dtype, "server", shown, start=start), runner


def started_library(
    plan: Plan, model: str, kind: str, loads: list[Load], stack: ExitStack, left_out: dict[str, str]
) -> Contender | None:
    """A library in process."""
    name, packages = LIBRARIES[kind]
    if kind == "torch-bfloat16" and "bfloat16" in left_out:
        return None
    say(f"{model}: starting {name} ({kind})")
    forms = {"openvino": "openvino", "onnxruntime": "onnx"}
    folder = plan.models[model]
    if kind in forms:
        folder = plan.venvs / "models" / folder.name / forms[kind]
    python = python_of(plan, "libraries")
    try:
        start = [library_start(python, kind, folder, FIRST) for _ in range(2)][1:]
        peer = stack.enter_context(library(python, kind, folder))
        _, dtype = peer.run(replace(loads[0], connections=1), 0)
    except BenchError as error:
        skip(f"{name} ({kind})", error, left_out)
        return None
    shown = f"bench/peers/child.py {kind}"
    versions = versions_of(python, packages)
    return Subject(name, model, dtype, "in process", shown, versions, start=start), LibraryRunner(peer, dtype)


def started_infinity(
    plan: Plan, model: str, loads: list[Load], stack: ExitStack, left_out: dict[str, str]
) -> Contender | None:
    """infinity's own server."""
    name, packages = INFINITY
    say(f"{model}: starting {name}")
    command = infinity_command(plan.venvs / "infinity", plan.models[model])
    theirs = [for_infinity(load) for load in loads]
    try:
        start = measure_start(command, for_infinity(FIRST), 1, INFINITY_PATH, OFFLINE)
        server = stack.enter_context(running(command, OFFLINE))
    except BenchError as error:
        skip(name, error, left_out)
        return None
    wrks = stack.enter_context(generators(theirs, server.url, INFINITY_PATH))
    runner = ServerRunner(server, {wrk.load.name: wrk for wrk in wrks})
    shown = show(command)
    versions = versions_of(python_of(plan, "infinity"), packages)
    return Subject(name, model, "float32", "server", shown, versions, start=start), runner


def show(command: Sequence[str]) -> str:
    """A command as a reader can repeat it: without where this checkout lies."""
    return " ".join([Path(command[0]).name, *command[1:]]).replace(f"{Path.cwd()}/", "")


def skip(name: str, error: BenchError, left_out: dict[str, str]) -> None:
    """A contender that does not start is named in the report; the others go on."""
    say(f"{name} is left out: {error}")
    left_out[name] = f"does not start: {str(error).strip().splitlines()[-1]}"


def versions_of(python: Path, packages: Sequence[str]) -> dict[str, str]:
    code = "import json, sys; from importlib.metadata import version; print(json.dumps([*map(version, sys.argv[1:])]))"
    text = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True).stdout
    return dict(zip(packages, json.loads(text), strict=True))


def main() -> None:
    plan = parse(sys.argv[1:])
    if not plan.venvs.is_dir():
        sys.exit(f"there are no environments of other libraries in {plan.venvs}\nhint: make bench-peers makes them")
    tables.run(lambda: measure(plan), plan.results)


if __name__ == "__main__":
    main()
