"""One model as an engine runs it: architecture, then pooling and Dense modules or a head, built from a checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from inspect import getdoc
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..checkpoint import PROJECTION, Checkpoint, Dense, Facts
from ..errors import CheckpointError, UnsupportedError
from ..nn.heads import AnswerHead
from ..nn.layers import ACTIVATIONS, Linear
from ..nn.parameters import Parameters, Table, Tensors, bind, check_all_used
from ..ops.spec import Constants, Inputs, Ops, Value
from ..types import Kind, Pooling, as_float32
from . import choose, supported
from .architecture import Architecture, Args
from .numbers import check_numbers, describe_problem

logger = logging.getLogger(__name__)


class Results(NamedTuple):
    """What a network gives for a batch."""

    pooled: Value
    """`[B, D]`: a vector, SPLADE weights or logits."""
    tokens: Value | None
    """`[*, W]`, of embedding models (`TokenColumns`)."""


class Network(NamedTuple):
    """One model, with what comes after it."""

    run: Callable[[Ops, Inputs], Results]
    dimensions: int
    """`D` of `Results.pooled`."""
    vocabulary: int
    """Number of token ids."""


class ModelFile(NamedTuple):
    """What implements a checkpoint's model."""

    name: str
    """Of the module in this package."""
    about: str
    """Its docstring."""
    architecture: Architecture[Any, Any]
    reason: str
    """What in config.json led to it."""


def build(checkpoint: Checkpoint, ops: Constants, tensors: Tensors | None = None) -> Network:
    """Builds the network with its weights as constants of the engine.

    tensors: taken in place of the checkpoint's weights.
    Raises UnsupportedError for an architecture or a configuration that we don't have, CheckpointError for weights that
    don't fit.
    """
    architecture = find_model_file(checkpoint).architecture
    args = read_args(checkpoint, architecture)
    tensors = checkpoint.weights if tensors is None else tensors
    beside = () if checkpoint.late is None else (PROJECTION,)
    names = architecture.tensors, architecture.heads, architecture.prefixes
    p, heads = bind(tensors, *names, ops, architecture.towers, beside=beside)
    if p.towers:
        checkpoint.warn(logger, "Only texts are served, the parts of the model for all else are left out: %s", p.towers)
    if p.surplus:
        checkpoint.warn(logger, "Of the weights are ignored, as no part of the model: %s", p.surplus)
    model = architecture.model(args, p)
    check_all_used(p)

    if checkpoint.reranking.answers is not None:
        answer = _answer_head(checkpoint, args, p, heads)
        return Network(lambda ops, x: Results(answer(ops, model(ops, x), x.layout), None), 1, args.vocab_size)

    if checkpoint.kind is not Kind.EMBEDDING:
        if architecture.classifier is None:
            raise _no_head(checkpoint, "a classifier's head")
        labels = len(checkpoint.labels)
        head = architecture.classifier(args, labels, heads)
        return Network(lambda ops, x: Results(head(ops, model(ops, x), x.layout), None), labels, args.vocab_size)

    if checkpoint.pooling is Pooling.SPLADE:
        if architecture.masked_lm is None:
            raise _no_head(checkpoint, "SPLADE pooling")
        masked_lm = architecture.masked_lm(args, model, heads)

        def splade(ops: Ops, inputs: Inputs) -> Results:
            logits = masked_lm(ops, model(ops, inputs))
            return Results(ops.pool(logits, checkpoint.splade, inputs.layout), None)

        return Network(splade, args.vocab_size, args.vocab_size)

    width = architecture.width(args, model)
    return embedding(checkpoint, model, width, ops, args.vocab_size, architecture.finish)


def _answer_head(checkpoint: Checkpoint, args: Args, p: Parameters, heads: Parameters) -> AnswerHead:
    """Of the rows of the vocabulary's matrix, which is that of the embeddings where no other is stored.

    Raises CheckpointError for ids that are not in it.
    """
    answers, config = checkpoint.reranking.answers, checkpoint.config
    assert answers is not None
    ids = [id_ for id_ in (answers.true, answers.false) if isinstance(id_, int)]
    tied = config.get("tie_word_embeddings")
    if tied is True or (tied is None and "lm_head.weight" not in heads):
        table = p.stored("embed.weight", (args.vocab_size, args.hidden_size))
    else:
        table = heads.stored("lm_head.weight", (args.vocab_size, args.hidden_size))
    if not ids or max(ids) >= args.vocab_size:
        raise CheckpointError(f"the answers' tokens {ids} are not in the vocabulary of {args.vocab_size} ids")
    cap = config.get("final_logit_softcapping")
    if cap is not None and not (isinstance(cap, int | float) and 0 < cap < math.inf):
        raise UnsupportedError(f"config.json: `final_logit_softcapping` should be a positive number, is {cap!r}")
    return AnswerHead(p, as_float32(np.ascontiguousarray(table[ids])), cap, answers.scale)


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
    project, pooled_width = _projection(checkpoint.token_dense, width, ops), _outputs(checkpoint.token_dense, width)
    if checkpoint.late is not None:
        if pooled_width != checkpoint.columns.vectors:
            problem = f"the model's hidden states have {width} values, and `hidden_size` is another number"
            raise UnsupportedError(f"config.json of {checkpoint.folder}: {problem}")
        embed = _late_interaction(model, project, normalized=checkpoint.late.normalized)
        return Network(embed, pooled_width, vocabulary)
    embed = _embedder(checkpoint, model, project, width, finish, ops)
    return Network(embed, _outputs(checkpoint.dense, pooled_width), vocabulary)


def _embedder(
    checkpoint: Checkpoint,
    model: Callable[[Ops, Inputs], Value],
    project: Callable[[Ops, Value], Value],
    width: int,
    finish: Callable[[Ops, Value], Value] | None,
    ops: Constants,
) -> Callable[[Ops, Inputs], Results]:
    """Tokens are given as they are pooled: after `project`."""
    pooling = checkpoint.pooling
    assert pooling is not None
    dense = _projection(checkpoint.dense, _outputs(checkpoint.token_dense, width), ops)
    lexical, vectors = (
        None if head is None else _projection((head,), width, ops) for head in (checkpoint.lexical, checkpoint.vectors)
    )

    def embed(ops: Ops, inputs: Inputs) -> Results:
        hidden = model(ops, inputs)
        pooled_from = project(ops, hidden)
        pooled = dense(ops, ops.pool(pooled_from, pooling, inputs.layout))
        tokens = [pooled_from]
        if vectors:
            tokens.insert(0, ops.l2_normalize(vectors(ops, hidden)))
        if lexical:
            tokens.insert(0, ops.relu(lexical(ops, hidden)))
        return Results(finish(ops, pooled) if finish else pooled, ops.concat(tokens) if len(tokens) > 1 else tokens[0])

    return embed


def _late_interaction(
    model: Callable[[Ops, Inputs], Value], project: Callable[[Ops, Value], Value], *, normalized: bool
) -> Callable[[Ops, Inputs], Results]:
    """A vector for each token; pooled: that of the first one, for nothing else is said of it."""

    def embed(ops: Ops, inputs: Inputs) -> Results:
        tokens = project(ops, model(ops, inputs))
        if normalized:
            tokens = ops.l2_normalize(tokens)
        return Results(ops.pool(tokens, Pooling.CLS, inputs.layout), tokens)

    return embed


def _projection(dense: tuple[Dense, ...], width: int, ops: Constants) -> Callable[[Ops, Value], Value]:
    """The Dense modules one after another. Raises CheckpointError if the first one takes vectors of another width."""
    if dense and dense[0].inputs != width:
        takes = dense[0].inputs
        raise CheckpointError(f"a Dense module or head takes vectors of {takes} values, the model's have {width}")
    layers = [_DenseLayer(layer, ops) for layer in dense]

    def project(ops: Ops, x: Value) -> Value:
        for layer in layers:
            x = layer(ops, x)
        return x

    return project


class _DenseLayer:
    """activation(x W^T + b): `[*, I]` -> `[*, O]`; with a residual plus x or, where I is not O, plus x R^T."""

    def __init__(self, dense: Dense, ops: Constants) -> None:
        table: Table = {f"{dense.prefix}{leaf}": f"linear.{leaf}" for leaf in ("weight", "bias")}
        p, _ = bind(dense.weights, table | {"residual.weight": "residual.weight"}, {}, (), ops)
        inputs, outputs = dense.inputs, dense.outputs
        self.linear = Linear(p / "linear", inputs, outputs, bias=dense.has_bias)
        self.act = ACTIVATIONS[dense.activation]
        self.has_residual = dense.has_residual
        is_projected = dense.has_residual and inputs != outputs
        self.residual = Linear(p / "residual", inputs, outputs, bias=False) if is_projected else None

    def __call__(self, ops: Ops, x: Value) -> Value:
        y = self.act(ops, self.linear(ops, x))
        if not self.has_residual:
            return y
        return ops.add(y, x if self.residual is None else self.residual(ops, x))


def _outputs(dense: tuple[Dense, ...], width: int) -> int:
    return dense[-1].outputs if dense else width


def find_model_file(checkpoint: Checkpoint) -> ModelFile:
    """The model file for the checkpoint. Raises UnsupportedError if there is none."""
    facts = checkpoint.facts
    if facts.file is None:
        problem = f"config.json: `model_type` is {checkpoint.model_type!r}, which is not supported"
        raise UnsupportedError(problem, hint=supported())
    module = _import(facts.file)
    return ModelFile(facts.file, getdoc(module) or "", module.ARCHITECTURE, facts.reason)


def facts_of(model_type: str, config: dict[str, Any]) -> Facts:
    """What `open_checkpoint` asks of an architecture.

    The positions of one that we have no file for, or whose config we can't read, are taken for a table.
    """
    choice = choose(model_type, config)
    # Those who pad with token 1 follow fairseq, where the position of padding is 1 too, and a text begins after it.
    first: int | None = 2 if config.get("pad_token_id") == 1 else 0
    if choice is None:
        return Facts(first_position=first)
    architecture: Architecture[Any, Any] = _import(choice.module).ARCHITECTURE
    with suppress(msgspec.ValidationError, UnsupportedError):  # building the model raises it again
        check_numbers(architecture.args, config)
        first = architecture.positions(msgspec.convert(config, architecture.args))
    return Facts(
        first_position=first,
        file=choice.module,
        reason=choice.reason,
        quantizes=architecture.quantizes,
        overflows_float16=architecture.overflows_float16,
        end_of_text=architecture.end_of_text(config),
    )


def read_args(checkpoint: Checkpoint, architecture: Architecture[Any, Any]) -> Any:
    """The keys of config.json that the model file reads. Raises UnsupportedError for a value that it can't have."""
    config = checkpoint.config
    check_numbers(architecture.args, config)
    try:
        return msgspec.convert(config, architecture.args)
    except msgspec.ValidationError as problem:
        raise UnsupportedError(f"config.json of {checkpoint.folder}: {describe_problem(problem, config)}") from None


def _import(file: str) -> ModuleType:
    return import_module(f".{file}", __package__)


def _no_head(checkpoint: Checkpoint, what: str) -> UnsupportedError:
    return UnsupportedError(f"{what} is not supported for `model_type` {checkpoint.model_type!r}")
