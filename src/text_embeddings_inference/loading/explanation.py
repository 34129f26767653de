"""What `--explain` says: as data for programs, and as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from ..checkpoint import File
from ..engines.base import Memory, Offer
from ..types import Kind, Pooling

WIDTH = 100
LABEL = 18


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the model can't be served, and the way out."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Architecture:
    """What makes the model."""

    module: str
    """Our model file, a graph, or Transformers."""
    about: str
    """What it says of itself."""
    reason: str
    """What led to it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the model gives."""

    kind: Kind
    kind_source: str
    """Which file or option decided; "": none did."""
    pooling: Pooling | None
    """None for classifiers."""
    pooling_source: str
    """Which file, option or rule decided."""
    labels: tuple[str, ...]
    """By class index; of embedding models there are none."""
    template: str
    """What said which template pairs are put into; "": none is."""
    score: str
    """Whose logits make a score; "": the model has a head of its own."""
    late_interaction: bool
    """Whether each token gets a vector."""
    late_format: str
    """Whose format says how; "": of a model that is for something else."""
    dense_modules: tuple[tuple[int, int], ...]
    """How many values each takes and gives."""
    sides: dict[str, str] = field(default_factory=dict)
    """What each side is, of a model with several, by the name that `prompt_name` gives."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of tokens."""

    max_input_length: int | None
    """Of one input as the server takes it; None: no batch could hold it."""
    model_length: int
    """Of one input as the model takes it; 0: not known."""
    model_length_source: str
    """What says so."""
    max_batch_tokens: int
    """Of one batch."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a model before it is served. What could not be found out is None."""

    model: str
    """As it was asked for."""
    served: bool
    """Whether it would be."""
    problems: tuple[Problem, ...] = ()
    """What stands in the way."""
    warnings: tuple[str, ...] = ()
    """What the log of a start would warn of."""
    folder: str | None = None
    """Of the files; None for those of the Hub that are not in its cache."""
    files: tuple[File, ...] = ()
    """All that a start reads."""
    unread: tuple[File, ...] = ()
    """Weights of which only the size is known."""
    model_type: str | None = None
    """Of config.json."""
    architecture: Architecture | None = None
    task: Task | None = None
    prompts: dict[str, str] | None = None
    """By name."""
    default_prompt: str | None = None
    """Put before inputs that name none."""
    limits: Limits | None = None
    dimensions: int | None = None
    """Of a result; None where the weights could not be looked into."""
    vocabulary: int | None = None
    """Number of token ids."""
    engine: Offer | None = None
    passed_over: tuple[str, ...] = ()
    """Why engines that would be preferred are not used."""
    plan: str | None = None
    """What the engine would compute, in a line, where it is known before."""
    steps: str | None = None
    """The same, with a line for each step."""
    memory: Memory | None = None

    def json(self) -> str:
        """For programs: all fields, on one line."""
        return orjson.dumps(self).decode()

    def text(self, *, steps: bool = False) -> str:
        """For people: a verdict, a table, then warnings and problems; steps: and the plan, step by step."""
        why = "" if self.served else f": {_count(len(self.problems), 'problem')}"
        lines = [f"{self.model} {'would' if self.served else 'would not'} be served{why}", ""]
        for label, values in self._rows():
            for value in values:
                lines += _wrapped(value, f"{label:{LABEL}}", " " * LABEL)
                label = ""
        for title, items in (("Warnings", self.warnings), ("Problems", map(_problem, self.problems))):
            numbered = [line for item in items for line in _wrapped(item, "  - ", "    ")]
            lines += ["", f"{title}:", *numbered] if numbered else []
        if steps and self.steps is not None:
            lines += ["", "Plan:", self.steps]
        return "\n".join(lines)

    def _rows(self) -> Iterator[tuple[str, list[str]]]:
        if self.architecture is not None:
            about = f"{self.architecture.module}: {self.architecture.about}"
            yield "architecture", [about, f"because {self.architecture.reason}"]
        if self.task is not None:
            yield from _task(self.task)
        if self.prompts:
            yield "prompts", [f"{name}: {text!r}" for name, text in self.prompts.items()]
        if self.default_prompt is not None:
            yield "default prompt", [repr(self.default_prompt)]
        if self.limits is not None and self.limits.model_length:
            yield from _limits(self.limits)
        if self.dimensions is not None:
            yield "results", [f"{_count(self.dimensions, 'value')} each; a vocabulary of {self.vocabulary} tokens"]
        if self.engine is not None:
            how = f"{self.engine.threads} threads, up to {self.engine.streams} batches side by side"
            what = f"{self.engine.name} on {self.engine.device} in {self.engine.dtype}, {how}"
            yield "engine", [what, *self.passed_over]
        if self.plan is not None:
            yield "plan", [self.plan]
        if self.memory is not None:
            memory = self.memory
            under_load = f"about {size(memory.started)} after the start, {size(memory.loaded)} under load"
            at_most = f"at most {size(memory.peak)}, pages of mapped files included (an estimate)"
            yield "memory", [under_load, at_most]
        if self.folder is not None:
            yield "folder", [self.folder]
        yield "files", [f"{file.name} ({size(file.size)})" for file in self.files]
        if self.unread:
            yield (
                "not looked into",
                [f"{file.name}: its tensors are known only when it is here" for file in self.unread],
            )


def size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _task(task: Task) -> Iterator[tuple[str, list[str]]]:
    labels = f", {_count(len(task.labels), 'label')}: {', '.join(task.labels)}" if task.labels else ""
    yield "task", [f"{task.kind}{labels}", *([f"because of {task.kind_source}"] if task.kind_source else [])]
    if task.template:
        yield "template", [f"from {task.template}"]
    if task.score:
        yield "score", [task.score]
    if task.late_interaction:
        yield "late interaction", [f"a vector for each token, in the format of {task.late_format}"]
    elif task.pooling is not None:
        yield "pooling", [f"{task.pooling}, from {task.pooling_source}"]
    if task.sides:
        yield "sides by prompt", [f"{name}: {what}" for name, what in task.sides.items()]
    if task.dense_modules:
        yield "Dense modules", [f"from {takes} to {gives} values" for takes, gives in task.dense_modules]


def _limits(limits: Limits) -> Iterator[tuple[str, list[str]]]:
    cut = limits.max_input_length is not None and limits.max_input_length < limits.model_length
    first = f"{limits.max_input_length if cut else limits.model_length} tokens, from "
    first += "`--max-batch-tokens`" if cut else limits.model_length_source
    more = [f"the model takes {limits.model_length}: {limits.model_length_source}"] if cut else []
    yield "longest input", [first, *more]
    yield "largest batch", [f"{limits.max_batch_tokens} tokens (`--max-batch-tokens`)"]


def _problem(problem: Problem) -> str:
    return problem.message if problem.hint is None else f"{problem.message}\nhint: {problem.hint}"


def _wrapped(text: str, first: str, others: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        indent = others if lines else first
        lines += textwrap.wrap(
            line, WIDTH, initial_indent=indent, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
        )
    return lines
