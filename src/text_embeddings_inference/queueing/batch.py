"""One call of the engine: encodings in, each one's own part of the output out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..engines.base import Engine
from ..types import Batch, Encoding, Float32Array, Output
from .jobs import Job

CANARY = Encoding(np.zeros(1, np.int32), None, 0)
"""One token, to see whether an engine works."""
OUT_OF_MEMORY = ("out of memory", "bad_alloc", "not enough memory", "failed to allocate", "cannot allocate memory")
"""What the errors of OpenVINO, oneDNN, CUDA and the system say, in lower case."""


class Computed(NamedTuple):
    """What came of a batch."""

    batch: Batch
    values: list[Float32Array]
    """Of each job, a view of the output."""
    spoilt: list[Job]
    """The jobs with a NaN in their values."""


def compute(engine: Engine, jobs: Sequence[Job], *, cores: int | None = None) -> Computed:
    """Runs a batch on so many cores (None: all); without jobs, the canary, which must have no NaN.

    Raises whatever the engine raises.
    """
    batch = engine.arrange([job.encoding for job in jobs] or [CANARY])
    output = engine.run(batch, tokens=any(job.group.tokens for job in jobs), cores=cores)
    values = own_values(jobs, batch, output)
    dirty = has_nan(output.pooled) or (output.tokens is not None and has_nan(output.tokens))
    if dirty and not jobs:
        raise ArithmeticError("the engine gives NaN for a single token")
    spoilt = [job for job, own in zip(jobs, values, strict=True) if has_nan(own)] if dirty else []
    return Computed(batch, values, spoilt)


def own_values(jobs: Sequence[Job], batch: Batch, output: Output) -> list[Float32Array]:
    """Each job's own part of the output: a view, never a copy."""
    starts = batch.lengths.cumsum() - batch.lengths
    values = []
    for index, job in enumerate(jobs):
        if not job.group.tokens:
            values.append(output.pooled[index])
            continue
        assert output.tokens is not None, "asked a model without token vectors for them"
        if batch.is_packed:
            values.append(output.tokens[starts[index] : starts[index] + job.length])
        else:
            values.append(output.tokens[index, : job.length])
    return values


def has_nan(values: Float32Array) -> bool:
    """In one pass without a copy: the minimum of what has a NaN is NaN."""
    return values.size > 0 and bool(np.isnan(values.min()))


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an engine's error says that there was too little memory: a smaller batch may fit."""
    text = str(problem).lower()
    named = type(problem).__name__ == "OutOfMemoryError"  # PyTorch's, which is not imported for it
    return isinstance(problem, MemoryError) or named or any(part in text for part in OUT_OF_MEMORY)
