"""Goes the way of a start, step by step, without stopping at what is wrong and without reading weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Checkpoint, Preview, Weights, open_checkpoint, preview
from ...models import choose
from ...models.build import ModelFile, Network, build, facts_of, find_model_file, read_args
from ...ops.spec import Value
from ...settings import Settings
from ...types import Kind, Pooling
from ..load import load_tokenizer
from ..open import find_max_input_length, hub_access, plan_for
from .explanation import Architecture, Explanation, Limits, Problem, Task
from .memory import estimate
from .problems import Problems

ANY_VOCABULARY = 1 << 31
"""In place of a vocabulary that is not known."""


def explain(settings: Settings, problems: Problems) -> Explanation:
    """How the model would be served, with everything in `problems` that stands in the way."""
    found = Explanation(model=settings.model.model_id, served=False)
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
        found = _survey(found, files, settings, problems)
    told = tuple(Problem(str(problem.args[0]), problem.hint) for problem in problems.found)
    return replace(found, served=not told, problems=told, warnings=tuple(problems.warnings))


def _survey(found: Explanation, files: Preview, settings: Settings, problems: Problems) -> Explanation:
    found = replace(
        found, folder=str(files.folder) if files.is_lasting else None, files=files.files, unread=files.unread
    )
    with problems.step():
        checkpoint = open_checkpoint(
            files.folder,
            facts_of,
            pooling=settings.model.pooling,
            dense_path=settings.model.dense_path,
            onnx_file=settings.model.onnx_file,
            weights=Weights((), ()) if any(file.name.endswith(".bin") for file in files.unread) else None,
            step=problems.step,
        )
        found = replace(
            found, task=_task(checkpoint), prompts=checkpoint.prompts, default_prompt=settings.model.default_prompt
        )
        plan = network = None
        with problems.step():
            plan = plan_for(checkpoint, settings)
            found = replace(found, engine=plan)
        with problems.step():
            if checkpoint.onnx is not None:
                found = replace(found, architecture=_graph(checkpoint, settings))
                if plan is not None and not files.unread:
                    network = _read_graph(checkpoint)
            elif choose(checkpoint.model_type, checkpoint.config) is None:
                found = replace(found, architecture=None if plan is None else _foreign(checkpoint))
            else:
                file = find_model_file(checkpoint)
                found = replace(found, architecture=_architecture(file))
                network = _build(checkpoint, file)
        if network is not None:
            found = replace(found, dimensions=network.dimensions, vocabulary=network.vocabulary)
        limits = None
        if checkpoint.max_input_length:
            with problems.step():
                limits = find_max_input_length(checkpoint, settings)
        found = replace(
            found,
            limits=Limits(
                limits, checkpoint.max_input_length, checkpoint.sources.max_input_length, settings.limits.token_limit
            ),
        )
        if checkpoint.tokenizer_file.is_file():
            with problems.step():
                load_tokenizer(
                    checkpoint,
                    settings,
                    max_input_length=limits or settings.limits.token_limit,
                    vocabulary=ANY_VOCABULARY if network is None else network.vocabulary,
                )
        if plan is not None:
            found = replace(found, memory=estimate(checkpoint, found.vocabulary, files, plan))
    return found


def _architecture(file: ModelFile) -> Architecture:
    summary = " ".join(file.about.partition("\n\n")[0].split())
    return Architecture(f"models/{file.name}.py", summary, file.reason)


def _foreign(checkpoint: Checkpoint) -> Architecture:
    reason = f"no file of ours fits `model_type` {checkpoint.model_type!r}; whether it loads is known only then"
    return Architecture("Transformers", "run by its AutoModel on PyTorch", reason)


def _graph(checkpoint: Checkpoint, settings: Settings) -> Architecture:
    assert checkpoint.onnx is not None
    reason = "there are no other weights" if settings.model.onnx_file is None else "of `--onnx-file`"
    return Architecture(checkpoint.onnx.file.name, "an ONNX graph, which is run as it is", reason)


def _read_graph(checkpoint: Checkpoint) -> Network:
    from ...engines.openvino import check_onnx  # by now the engine has been chosen, and its library loaded

    return check_onnx(checkpoint)


def _task(checkpoint: Checkpoint) -> Task:
    return Task(
        kind=checkpoint.kind,
        kind_source=checkpoint.sources.kind,
        pooling=checkpoint.pooling,
        pooling_source=checkpoint.sources.pooling,
        labels=checkpoint.labels,
        late_interaction=checkpoint.late is not None,
        dense_modules=tuple((dense.weight.shape[1], dense.weight.shape[0]) for dense in checkpoint.dense),
    )


def _build(checkpoint: Checkpoint, file: ModelFile) -> Network | None:
    """The network, built of shapes: checks all values of config.json and all tensors. None where there are no tensors.

    Raises UnsupportedError and CheckpointError as at a start.
    """
    if not len(checkpoint.weights):
        read_args(checkpoint, file.architecture)
        return None
    if checkpoint.kind is Kind.EMBEDDING and checkpoint.pooling is None:  # which is told already
        checkpoint = replace(checkpoint, pooling=Pooling.MEAN)
    return build(checkpoint, _NoConstants(checkpoint.longest), _Shapes(checkpoint.weights))


class _NoConstants:
    """Stands in for an engine."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def constant(self, array: NDArray[Any]) -> Value:
        return Value(None)


class _Shapes:
    """Stands in for weights: the names and shapes are theirs, the values are zeros that take no memory."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def names(self) -> Iterable[str]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(name)

    def array(self, name: str) -> NDArray[Any]:
        return np.broadcast_to(np.zeros((), np.float32), self.shape(name))
