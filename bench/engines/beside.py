"""Engines on the same texts in this process: batches as a server would make them, and the times of two in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.load.peak import Peaks, operations_of
from bench.load.texts import ragged_lengths
from bench.report.records import BASE, MINILM, InProcess
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.engines.base import Engine, Need, Offer, Refusal, share_of_cores
from text_embeddings_inference.engines.registry import KINDS
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.queueing.scheduler import Scheduler
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Batch, Encoding

LOADS = {
    MINILM: {"16 tokens": [16], "128 tokens": [128], "32 x 128 tokens": [128] * 32, "ragged, 64": ragged_lengths(64)},
    BASE: {"512 tokens": [512], "ragged, 32": ragged_lengths(32)},
}
"""Lengths in tokens of the texts that wait at once, by model."""
LEAST_ROUNDS = 3
FIRST_ID, END_ID = 5, 1500
"""Token ids are drawn from these: all models have them."""


@dataclass(slots=True)
class Waiting:
    """A text as the scheduler sees it."""

    encoding: Encoding
    ahead: int = 0
    cancelled: bool = False

    @property
    def length(self) -> int:
        return len(self.encoding)


@dataclass(frozen=True, slots=True)
class Work:
    """The batches of a load for one engine, and the cores that each may use (None: all)."""

    engine: Engine
    batches: list[Batch]
    cores: int | None

    def run(self, pool: ThreadPoolExecutor | None) -> None:
        """pool: as many threads as batches run side by side; None: one after another in this thread."""
        if pool is None or len(self.batches) == 1:
            for batch in self.batches:
                self.engine.run(batch, cores=self.cores)
        else:
            list(pool.map(lambda batch: self.engine.run(batch, cores=self.cores), self.batches))


def texts(lengths: Sequence[int]) -> list[Encoding]:
    """Of random ids, the same on every run."""
    random = np.random.default_rng(0)
    return [Encoding(random.integers(FIRST_ID, END_ID, length).astype(np.int32), None, 0) for length in lengths]


def work_of(engine: Engine, lengths: Sequence[int]) -> Work:
    """The batches that the scheduler makes of texts that all wait when the first is taken."""
    capacity = engine.capacity
    scheduler: Scheduler[Waiting] = Scheduler()
    for encoding in texts(lengths):
        scheduler.add(Waiting(encoding))
    batches: list[Batch] = []
    while taken := scheduler.next_batch(engine.cost, capacity.batch_tokens, max(1, capacity.streams - len(batches))):
        batches.append(engine.arrange([waiting.encoding for waiting in taken]))
    return Work(engine, batches, None if len(batches) == 1 else share_of_cores(engine, capacity.streams))


@contextmanager
def engine_of(name: str, model: Path, dtype: str, threads: int) -> Iterator[Engine | str]:
    """The engine of this kind as `--engine NAME --dtype DTYPE --threads N` would make it, or why there is none."""
    kind = next(kind for kind in KINDS if kind.option == name)
    settings = Settings.of(model_id=str(model), engine=name, dtype=dtype, threads=threads, streams=threads)
    need = Need(open_checkpoint(model, facts_of), settings)
    offer = kind.offer(need)
    if isinstance(offer, Refusal):
        yield offer.reason
        return
    assert isinstance(offer, Offer)
    engine = kind.make(need, offer)
    try:
        engine.prepare(threads)
        yield engine
    finally:
        engine.close()


def measure_beside(
    model: str, folder: Path, dtypes: tuple[str, str], threads: int, peaks: Peaks | None, seconds: float
) -> list[InProcess] | str:
    """The native engine and OpenVINO under every load of the model, round by round; or why that can't be.

    dtypes: of the native engine and of OpenVINO; seconds: for each load, of which there are at least `LEAST_ROUNDS`.
    One thread is timed by the processor's time, which others that run disturb least, several by the clock.
    """
    with ExitStack() as stack:
        made = [
            stack.enter_context(engine_of(name, folder, dtype, threads))
            for name, dtype in zip(("native", "openvino"), dtypes, strict=True)
        ]
        engines = [engine for engine in made if not isinstance(engine, str)]
        if len(engines) < len(made):
            return "; ".join(why for why in made if isinstance(why, str))
        pool = stack.enter_context(ThreadPoolExecutor(threads)) if threads > 1 else None
        clock = time.process_time if threads == 1 else time.perf_counter
        found: list[InProcess] = []
        for load, lengths in LOADS[model].items():
            one = InProcess(load, threads, *dtypes, operations_of(folder, lengths))
            works = [work_of(engine, lengths) for engine in engines]
            _fill(one, works, pool, clock, peaks, seconds)
            found.append(one)
    return found


def _fill(
    one: InProcess,
    works: Sequence[Work],
    pool: ThreadPoolExecutor | None,
    clock: Callable[[], float],
    peaks: Peaks | None,
    seconds: float,
) -> None:
    """Rounds of both engines and of the loop that shows the machine's peak."""
    for work in works:
        work.run(pool)  # the first time, kernels are made for the shapes
    end = time.monotonic() + seconds
    while len(one.native_ms) < LEAST_ROUNDS or time.monotonic() < end:
        for work, times in zip(works, (one.native_ms, one.openvino_ms), strict=True):
            start = clock()
            work.run(pool)
            times.append(1e3 * (clock() - start))
        peak = peaks.operations_per_second(one.dtype, one.threads, clock) if peaks else None
        if peak is not None:
            one.peak.append(peak)
