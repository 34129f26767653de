"""One model as an engine runs it: architecture, then pooling and Dense modules or a head, built from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from ..checkpoint import Checkpoint, Dense
from ..errors import CheckpointError, UnsupportedError
from ..nn.layers import ACTIVATIONS
from ..nn.parameters import Tensors, bind, check_all_used
from ..ops.spec import Constants, Inputs, Ops, Value
from ..types import Kind, Pooling
from . import ARCHITECTURES, choose
from .numbers import check_numbers, describe_problem


class Results(NamedTuple):
    """pooled: `[B, D]`: a vector, SPLADE weights or logits; tokens: `[*, W]`, of embedding models (`TokenColumns`)."""

    pooled: Value
    tokens: Value | None


class Network(NamedTuple):
    """run: from a batch to its results; dimensions: `D` of `Results.pooled`; vocabulary: number of token ids."""

    run: Callable[[Ops, Inputs], Results]
    dimensions: int
    vocabulary: int


class Architecture(NamedTuple):
    """module: a model file; reason: what in config.json led to it."""

    module: ModuleType
    reason: str


def build(checkpoint: Checkpoint, ops: Constants, tensors: Tensors | None = None) -> Network:
    """Builds the network with its weights as constants of the engine.

    tensors: taken in place of the checkpoint's weights.
    Raises UnsupportedError for an architecture or a configuration that we don't have, CheckpointError for weights that
    don't fit.
    """
    architecture = find_architecture(checkpoint).module
    args = read_args(checkpoint, architecture)
    tensors = checkpoint.weights if tensors is None else tensors
    p, heads = bind(tensors, architecture.TENSORS, architecture.HEADS, architecture.PREFIXES, ops)
    model = architecture.Model(args, p)
    check_all_used(p)

    if checkpoint.kind is not Kind.EMBEDDING:
        labels = len(checkpoint.labels)
        head = _head(architecture, checkpoint, "classifier")(args, labels, heads)
        return Network(lambda ops, x: Results(head(ops, model(ops, x), x.layout), None), labels, args.vocab_size)

    if checkpoint.pooling is Pooling.SPLADE:
        masked_lm = _head(architecture, checkpoint, "masked_lm")(args, model, heads)

        def splade(ops: Ops, inputs: Inputs) -> Results:
            logits = masked_lm(ops, model(ops, inputs))
            return Results(ops.pool(logits, Pooling.SPLADE, inputs.layout), None)

        return Network(splade, args.vocab_size, args.vocab_size)

    width = getattr(model, "width", args.hidden_size)
    return embedding(checkpoint, model, width, ops, args.vocab_size, getattr(architecture, "finish", None))


def embedding(
    checkpoint: Checkpoint,
    model: Callable[[Ops, Inputs], Value],
    width: int,
    ops: Constants,
    vocabulary: int,
    finish: Callable[[Ops, Value], Value] | None = None,
) -> Network:
    """The network of an embedding model: what comes after the hidden states `[*, width]` that `model` gives.

    finish: what the architecture does to a pooled vector in the end.
    """
    if checkpoint.late is not None:
        return _late_interaction(checkpoint, model, width, ops, vocabulary)
    embed = _embedder(checkpoint, model, width, finish, ops)
    return Network(embed, _outputs(checkpoint.dense, width), vocabulary)


def _embedder(
    checkpoint: Checkpoint,
    model: Callable[[Ops, Inputs], Value],
    width: int,
    finish: Callable[[Ops, Value], Value] | None,
    ops: Constants,
) -> Callable[[Ops, Inputs], Results]:
    pooling = checkpoint.pooling
    assert pooling is not None
    dense = _projection(checkpoint.dense, width, ops)
    lexical, vectors = (
        None if head is None else _projection((head,), width, ops) for head in (checkpoint.lexical, checkpoint.vectors)
    )

    def embed(ops: Ops, inputs: Inputs) -> Results:
        hidden = model(ops, inputs)
        pooled = dense(ops, ops.pool(hidden, pooling, inputs.layout))
        tokens = [hidden]
        if vectors:
            tokens.insert(0, ops.l2_normalize(vectors(ops, hidden)))
        if lexical:
            tokens.insert(0, ops.relu(lexical(ops, hidden)))
        return Results(finish(ops, pooled) if finish else pooled, ops.concat(tokens) if len(tokens) > 1 else hidden)

    return embed


def _late_interaction(
    checkpoint: Checkpoint, model: Callable[[Ops, Inputs], Value], width: int, ops: Constants, vocabulary: int
) -> Network:
    """A vector of length 1 for each token; pooled: that of the first one, for nothing else is said of it."""
    project = _projection(checkpoint.dense, width, ops)

    def embed(ops: Ops, inputs: Inputs) -> Results:
        tokens = ops.l2_normalize(project(ops, model(ops, inputs)))
        return Results(ops.pool(tokens, Pooling.CLS, inputs.layout), tokens)

    return Network(embed, _outputs(checkpoint.dense, width), vocabulary)


def _projection(dense: tuple[Dense, ...], width: int, ops: Constants) -> Callable[[Ops, Value], Value]:
    """The Dense modules one after another. Raises CheckpointError if the first one takes vectors of another width."""
    if dense and dense[0].weight.shape[1] != width:
        takes = dense[0].weight.shape[1]
        raise CheckpointError(f"a Dense module or head takes vectors of {takes} values, the model's have {width}")
    layers = [
        (ops.constant(d.weight), None if d.bias is None else ops.constant(d.bias), ACTIVATIONS[d.activation])
        for d in dense
    ]

    def project(ops: Ops, x: Value) -> Value:
        for weight, bias, act in layers:
            x = act(ops, ops.linear(x, weight, bias))
        return x

    return project


def _outputs(dense: tuple[Dense, ...], width: int) -> int:
    return dense[-1].weight.shape[0] if dense else width


def find_architecture(checkpoint: Checkpoint) -> Architecture:
    """The model file for the checkpoint. Raises UnsupportedError if there is none."""
    choice = choose(checkpoint.model_type, checkpoint.config)
    if choice is None:
        raise UnsupportedError(
            f"config.json: `model_type` is {checkpoint.model_type!r}, which is not supported",
            hint=f"supported are {', '.join(ARCHITECTURES)}",
        )
    return Architecture(import_module(f".{choice.module}", __package__), choice.reason)


def read_args(checkpoint: Checkpoint, architecture: ModuleType) -> Any:
    """The keys of config.json that the model file reads. Raises UnsupportedError for a value that it can't have."""
    config = checkpoint.config
    check_numbers(architecture.Args, config)
    try:
        return msgspec.convert(config, architecture.Args)
    except msgspec.ValidationError as problem:
        raise UnsupportedError(f"config.json of {checkpoint.folder}: {describe_problem(problem, config)}") from None


def _head(architecture: ModuleType, checkpoint: Checkpoint, name: str) -> Callable[..., Any]:
    if not hasattr(architecture, name):
        what = "a classifier's head" if name == "classifier" else "SPLADE pooling"
        raise UnsupportedError(f"{what} is not supported for `model_type` {checkpoint.model_type!r}")
    head = getattr(architecture, name)
    assert callable(head)
    return head  # type: ignore[no-any-return]
