"""What each product of a plan loses by its format: some outputs, computed in float32 too from the same inputs."""

from __future__ import annotations

import ctypes as c
import logging
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops.native import Node
from ..types import as_float32
from .batch import make_batch, opened
from .formats import DTYPES, EXACT, Formats
from .library import CMatrix, CProbe, Level
from .pack import Packer
from .packs import Packs
from .plan import Plan
from .steps import Op, Weights

logger = logging.getLogger(__name__)

MULTIPLICATIONS = 5_000_000_000
"""Of the batch that is looked at: 0.1 s or less in float32 on two cores with AVX2."""
TOKENS = (16, 96)
"""Of that batch, at least and at most."""
LENGTH = 24
"""Tokens of its sequences."""
SOME = 64
"""Weights of an output by which the size of most of them is known."""
MOST_NAMED = 8
"""Products that are named in the log."""


def make_plan(
    level: Level,
    results: tuple[Node, Node | None],
    max_length: int,
    formats: Formats,
    threads: int = 1,
    packs: Packs | None = None,
) -> Plan:
    """A plan (see `Plan`) whose products lose no more by their formats than `Formats.limit` allows, which is logged.

    Its packed weights are kept: the next start has the same formats without measuring.

    Raises UnsupportedError as `Plan`, MemoryError."""
    plan = Plan(level, results, max_length, formats, threads, packs)
    if formats.most_loss is not None and not plan.is_kept:
        chosen = _limit(plan, level, formats, threads)
        if chosen != tuple(plan.formats.values()):
            plan.close()
            plan = Plan(level, results, max_length, formats, threads, packs, chosen)
    if formats.most_loss is not None:
        logger.info("%s: %s", formats.dtype, _told(plan, formats))
    plan.keep()
    return plan


def _limit(plan: Plan, level: Level, formats: Formats, threads: int) -> tuple[str, ...]:
    """The formats with which the products lose no more than is allowed."""
    start = time.perf_counter()
    losses = measure_losses(plan, level, threads)
    chosen = formats.limit(list(plan.formats), losses)
    unchanged = [loss for loss, *same in zip(losses, plan.formats.values(), chosen, strict=True) if same[0] == same[1]]
    logger.info(
        "%s: all products together are %.2g from float32, by random tokens; those that stay in it %.2g (%.2f s)",
        *(formats.dtype, math.hypot(*losses), math.hypot(*unchanged), time.perf_counter() - start),
    )
    return chosen


def _told(plan: Plan, formats: Formats) -> str:
    """How many products have the format that was asked for, and which have another, to be read."""
    words = {format_: dtype for dtype, format_ in DTYPES.items()} | {"f32_b16": "float32"}
    others = [
        f"{number} ({step.weights[0].matrices[0].shape[1]} -> {step.out.width}) in {words[format_]}"
        for number, (step, format_) in enumerate(plan.formats.items())
        if format_ != formats.wanted
    ]
    count = len(plan.formats)
    text = "; ".join([f"{count - len(others)} of {count} products", *others[:MOST_NAMED]])
    return f"{text}; and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else text


def measure_losses(plan: Plan, level: Level, threads: int = 1) -> list[float]:
    """For each product of the plan the relative error of its result by its format, of the row that loses most: infinite
    where that is not a number, 0 where the format rounds no inputs.

    The batch is of ids drawn from the vocabulary, always the same ones. Raises MemoryError."""
    ids, lengths = _draw(plan)
    values = np.zeros((len(plan.formats), 2, len(ids), level.panel), np.float32)
    packer, probes, samples = Packer(level), (CProbe * len(plan.steps))(), []
    for number, (step, format_) in enumerate(plan.formats.items()):
        if step.op is Op.LINEAR and format_ not in EXACT:
            place = plan.steps.index(step)
            columns, sample = _sample(step.constants[0], plan.raw.steps[place].a, level.panel)
            rough, exact = (c.addressof(packer.matrix(sample, format_)) for format_ in (format_, "f32"))
            probes[place] = CProbe(rough, exact, *(array.ctypes.data for array in (columns, *values[number])))
            samples.append((columns, sample))
    packer.pack(threads)
    _run(plan, level, ids, lengths, probes, threads)
    return [_loss(rough, exact) for rough, exact in values]


def _loss(rough: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Of the row that loses most. Columns larger than most count as much as those: a model may weigh them down.

    Both: `[T, panel]`."""
    with np.errstate(all="ignore"):
        sizes = np.sqrt(np.mean(np.square(exact, dtype=float), 0))
        sizes = np.maximum(sizes, np.median(sizes)) + 1e-30
        difference, whole = (rough - exact.astype(float)) / sizes, exact / sizes
        shares = np.linalg.norm(difference, axis=1) / np.maximum(np.linalg.norm(whole, axis=1), 1e-30)
    return float(np.where(np.isfinite(shares), shares, np.inf).max())


def _draw(plan: Plan) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and the lengths of their sequences."""
    weights = sum(matrix.size for step in plan.formats for matrix in step.constants[0].matrices)
    tokens = int(np.clip(MULTIPLICATIONS // max(weights, 1), *TOKENS))
    length = min(LENGTH, tokens, plan.table_rows.get("positions", LENGTH))
    lengths = np.full(tokens // length, length, np.int32)
    ids = np.random.default_rng(0).integers(0, plan.table_rows["input_ids"], lengths.sum(), dtype=np.int32)
    return ids, lengths


def _sample(weights: Weights, address: int, count: int) -> tuple[NDArray[np.int32], Weights]:
    """So many outputs: half of them from all over, half of them those that have the largest weight beside their others.

    address: of the packed matrix, whose scales are in proportion to the largest weights."""
    matrix = CMatrix.from_address(address)
    scales = np.ctypeslib.as_array((c.c_float * matrix.outputs).from_address(matrix.scale))
    others = np.concatenate([as_float32(one[:, :SOME]) for one in weights.matrices])
    with np.errstate(all="ignore"):
        peaks = scales / np.sqrt(np.mean(np.square(others), 1) + 1e-30)
    spread = np.linspace(0, matrix.outputs - 1, count - count // 2).astype(np.int32)
    highest = np.argsort(-np.nan_to_num(peaks, nan=np.inf), kind="stable")[: count // 2]
    columns = np.resize(np.concatenate([spread, highest]), count).astype(np.int32)
    whole = np.stack([as_float32(_row(weights, number)) for number in columns])
    return columns, Weights((whole,), (None,))


def _row(weights: Weights, number: int) -> NDArray[Any]:
    """The weights of an output, as they are stored."""
    for matrix in weights.matrices:
        if number < len(matrix):
            row: NDArray[Any] = matrix[number]
            return row
        number -= len(matrix)
    raise IndexError(number)


def _run(
    plan: Plan, level: Level, ids: NDArray[np.int32], lengths: NDArray[np.int32], probes: Any, threads: int
) -> None:
    pooled = np.empty((len(lengths), plan.width), np.float32)
    batch = make_batch(ids, lengths, plan.ropes, pooled)
    batch.probes = probes
    with opened(level, plan) as engine:
        team = level.library.tei_team_new(threads) if threads > 1 else None
        problem = level.library.tei_run(engine, c.byref(batch), team)
        level.library.tei_team_free(team)
    if problem:
        raise MemoryError("there is too little memory to measure the products")
