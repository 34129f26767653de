"""The inputs of a request, or of a chunk of one, on their way through an engine: they come back in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import InferenceError
from ..telemetry.tracing import BatchRun
from ..types import Encoding, Float32Array


@dataclass(frozen=True, slots=True)
class Row:
    """What the engine gave for one input."""

    encoding: Encoding
    """The input."""
    values: Float32Array
    """Its row of `Output.pooled` `[D]`, or its rows of `Output.tokens` `[n, W]`."""
    inference: float
    """Seconds the engine took for the batch."""
    queue: float
    """Seconds between queueing and answer, less `inference`."""
    batch: BatchRun | None = None
    """The batch, if it is traced."""


class JobGroup:
    """Inputs that are queued and answered together. Written by the engines' threads, under the runner's lock."""

    def __init__(
        self,
        encodings: Sequence[Encoding],
        *,
        tokens: bool,
        on_done: Callable[[], object],
        copies: Sequence[int] | None = None,
        ahead: int = 0,
    ) -> None:
        """tokens: what each token gets is wanted, not the pooled vector; on_done: called once, by an engine's thread;
        copies: how many inputs each encoding stands for; ahead: tokens of the same request that are queued already.
        """
        self.encodings = encodings
        self.copies = [1] * len(encodings) if copies is None else copies
        self._ahead = ahead
        self.tokens = tokens
        self.cancelled = False
        self.on_done = on_done
        self.rows: list[Row | InferenceError | None] = [None] * len(encodings)
        self._missing = len(encodings)

    @property
    def length(self) -> int:
        """Tokens of all its inputs."""
        return sum(map(len, self.encodings))

    def jobs(self, now: float) -> list[Job]:
        """Its inputs, to be queued now. They know the group and not the other way round: a cycle would keep the
        engine's output in memory until the garbage collector comes."""
        jobs = []
        ahead = self._ahead
        for index, encoding in enumerate(self.encodings):
            jobs.append(Job(self, index, encoding, self.copies[index], now, ahead))
            ahead += len(encoding)
        return jobs

    def deliver(self, job: Job, row: Row | InferenceError) -> bool:
        """Takes the answer to one input; True if it was the last."""
        assert self.rows[job.index] is None, "an input was answered twice"
        self.rows[job.index] = row
        self._missing -= 1
        return self._missing == 0

    @property
    def failed(self) -> int:
        """Inputs that an error answered so far."""
        answers = zip(self.rows, self.copies, strict=True)
        return sum(times for row, times in answers if isinstance(row, InferenceError))

    def results(self) -> list[Row]:
        """The rows, in the order of the inputs. Raises the first input's error, for all that have one."""
        rows = []
        for index, row in enumerate(self.rows):
            if isinstance(row, InferenceError):
                row.inputs, row.index = self.failed, index
                raise row
            assert row is not None, "asked before all rows were there"
            rows.append(row)
        return rows


@dataclass(slots=True, eq=False)
class Job:
    """One input in the queue: what the scheduler sees, and the way back."""

    group: JobGroup
    index: int
    """Its place in the group."""
    encoding: Encoding
    copies: int
    """Inputs of its request that its row answers."""
    queued_at: float
    ahead: int
    """Tokens of its request that were queued before it."""

    @property
    def length(self) -> int:
        return len(self.encoding)

    @property
    def cancelled(self) -> bool:
        return self.group.cancelled
