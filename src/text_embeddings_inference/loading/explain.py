"""`--explain`: how a model would be served, or all that stands in the way.

It goes the way of a start, by the same functions, without stopping at what is wrong and without reading weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..checkpoint import Checkpoint, Findings, Preview, Request, Static, Weights, examine_checkpoint, preview
from ..engines.base import EngineKind, Need
from ..engines.inspection import inspect
from ..engines.registry import choose
from ..errors import StartError
from ..models.build import Network, facts_of, find_model_file
from ..settings import Settings
from .explanation import Architecture, Explanation, Limits, Problem, Task
from .load import load_tokenizers
from .open import find_answers, find_max_input_length, hub_access

ANY_VOCABULARY = 1 << 31
"""In place of a vocabulary that is not known."""


def explain(settings: Settings) -> Explanation:
    """How the model would be served, with everything that stands in the way."""
    found, problems = Explanation(model=settings.model.model_id, served=False), _Problems()
    with (
        problems.watch_log(),
        problems.step(),
        preview(
            settings.model.model_id,
            hub_access(settings),
            dense_path=settings.model.dense_path,
            onnx_file=settings.model.onnx_file,
        ) as files,
    ):
        folder = str(files.folder) if files.is_lasting else None
        found = replace(found, folder=folder, files=files.files, unread=files.unread)
        found = _survey(found, files, settings, problems)
    errors = tuple(Problem(str(problem.args[0]), problem.hint) for problem in problems.found)
    return replace(found, served=not errors, problems=errors, warnings=tuple(problems.warnings))


class _Problems(logging.Handler):
    """What was found to be wrong: errors, instead of stopping at the first, and what the log warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[StartError] = []
        self.warnings: list[str] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Keeps a StartError, and lets what follows go on."""
        try:
            yield
        except StartError as problem:
            self.found.append(problem)

    @contextmanager
    def watch_log(self) -> Iterator[None]:
        """Keeps what this package logs as a warning or worse, each line once."""
        logger = logging.getLogger(__name__.partition(".")[0])
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in self.warnings:
            self.warnings.append(line)


def _survey(found: Explanation, files: Preview, settings: Settings, problems: _Problems) -> Explanation:
    examined = examine_checkpoint(
        Request(
            files.folder,
            facts_of,
            pooling=settings.model.pooling,
            dense_path=settings.model.dense_path,
            onnx_file=settings.model.onnx_file,
            rerank_template=settings.model.rerank_template,
            rerank_answers=settings.model.rerank_answers,
            weights=Weights((), ()) if any(file.name.endswith(".bin") for file in files.unread) else None,
            linked=files.linked,
        )
    )
    problems.found += examined.problems.values()
    if "config" in examined.problems:
        return found
    checkpoint = examined.checkpoint()
    found = replace(
        found,
        model_type=checkpoint.model_type,
        task=_task(checkpoint),
        prompts=checkpoint.prompts,
        default_prompt=settings.model.default_prompt,
    )
    with problems.step():
        if "check tokenizer" not in examined.problems:
            checkpoint = find_answers(checkpoint)
    found = _find_engine(found, Need(checkpoint, settings), problems)
    return _find_limits(found, examined, settings, problems)


def _find_engine(found: Explanation, need: Need, problems: _Problems) -> Explanation:
    """What runs the model, and what is known of it then."""
    kind = network = None
    with problems.step():
        kind, offer, passed_over = choose(need)
        found = replace(found, engine=offer, passed_over=passed_over)
    with problems.step():
        if kind is not None or need.checkpoint.facts.file is not None:
            found = replace(found, architecture=_architecture(need))
            network = _inspect(need, kind, is_complete=not found.unread)
    if network is not None:
        found = replace(found, dimensions=network.dimensions, vocabulary=network.vocabulary)
    if kind is None:
        return found
    stored = sum(file.size for file in found.files if file.name.endswith((".safetensors", ".bin", ".onnx")))
    with problems.step():
        if network is not None and (plan := kind.plan(need)) is not None:
            found = replace(found, plan=plan[0], steps=plan[1])
    return replace(found, memory=kind.memory(need, offer, found.vocabulary, stored))


def _inspect(need: Need, kind: EngineKind | None, *, is_complete: bool) -> Network | None:
    """The network as `kind` would build it; None for a graph that is not here. Raises as at a start."""
    if kind is None:
        return inspect(need.checkpoint)
    return kind.inspect(need) if is_complete or need.checkpoint.onnx is None else None


def _find_limits(found: Explanation, examined: Findings, settings: Settings, problems: _Problems) -> Explanation:
    """How long inputs may be; reads the tokenizer."""
    checkpoint, longest, largest = examined.checkpoint(), None, settings.limits.token_limit
    if checkpoint.max_input_length:
        with problems.step():
            longest = find_max_input_length(checkpoint, settings)
    if "check tokenizer" not in examined.problems:
        with problems.step():
            load_tokenizers(
                checkpoint,
                settings,
                max_input_length=longest or largest,
                vocabulary=found.vocabulary or ANY_VOCABULARY,
            )
    limits = Limits(longest, checkpoint.max_input_length, checkpoint.sources.max_input_length, largest)
    return replace(found, limits=limits)


def _architecture(need: Need) -> Architecture:
    """What makes the model."""
    graph = need.checkpoint.onnx
    if graph is not None:
        reason = "there are no other weights" if need.settings.model.onnx_file is None else "of `--onnx-file`"
        return Architecture(graph.file.name, "an ONNX graph, which is run as it is", reason)
    if need.checkpoint.static is Static.WEIGHTS:
        return Architecture("engines/lookup.py", "a weight for each token that a text has", "of `modules.json`")
    if need.checkpoint.facts.file is None:
        reason = f"no file of ours fits `model_type` {need.checkpoint.model_type!r}"
        return Architecture("Transformers", "run by its AutoModel on PyTorch", reason)
    file = find_model_file(need.checkpoint)
    about = " ".join(file.about.partition("\n\n")[0].split())
    static = need.checkpoint.static
    reason = file.reason if static is None else f"it is a {static}, by modules.json or by model2vec's config.json"
    return Architecture(f"models/{file.name}.py", about, reason)


def _task(checkpoint: Checkpoint) -> Task:
    return Task(
        kind=checkpoint.kind,
        kind_source=checkpoint.sources.kind,
        pooling=checkpoint.pooling,
        pooling_source=checkpoint.sources.pooling,
        labels=checkpoint.labels,
        template=checkpoint.reranking.source,
        score="" if checkpoint.reranking.answers is None else checkpoint.reranking.answers.words,
        late_interaction=checkpoint.late is not None,
        late_format=checkpoint.sources.late,
        dense_modules=tuple((dense.inputs, dense.outputs) for dense in checkpoint.all_dense),
        sides=_sides(checkpoint),
    )


def _sides(checkpoint: Checkpoint) -> dict[str, str]:
    """What each side of a model is, by name."""
    router = checkpoint.router
    if router is None:
        return {}
    sides = {router.own: checkpoint, **checkpoint.sides}
    return {
        name: f"{side.static or side.model_type}{' (the default)' if name == router.default else ''}"
        for name, side in sides.items()
    }
