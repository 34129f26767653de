"""What an engine is: it runs batches of one model, and nothing else. And what a kind of engine is: it makes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from ..checkpoint import Checkpoint
from ..models import supported
from ..models.build import Network
from ..settings import Settings
from ..types import Batch, Encoding, Output, Pooling
from .inspection import inspect


@dataclass(frozen=True, slots=True)
class Capacity:
    """The batches that an engine is given."""

    streams: int
    """Batches that run side by side."""
    batch_tokens: int
    """Computed tokens of a batch above which larger batches gain nothing."""


class Engine(Protocol):
    """One model, compiled for one kind of hardware."""

    dimensions: int
    """Width `D` of the pooled vectors."""
    vocabulary: int
    """How many token ids there are."""
    longest: int
    """Tokens of the longest sequence that it runs."""
    cores: int
    """CPU cores it may use, all streams together."""
    capacity: Capacity
    """What it does well with before anything is measured; `streams` is the most it can."""
    trials: tuple[int, ...]
    """Computed tokens of the batches that are worth measuring, ascending."""

    def arrange(self, encodings: list[Encoding]) -> Batch:
        """The encodings in the layout this engine runs."""
        ...

    def cost(self, longest: int, count: int, tokens: int) -> int:
        """Tokens it computes for `count` sequences of `tokens` tokens in all, the longest of `longest`."""
        ...

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        """Run one batch and wait for it; called from several threads at once.

        tokens: what each token gets is wanted too; cores: so many may be used for this batch, None for all of them.
        Raises whatever the hardware's library raises, MemoryError where there is too little memory for the batch.
        """
        ...

    def prepare(self, streams: int) -> None:
        """Wait until so many batches can run side by side, and give back what only more would need."""
        ...

    def close(self) -> None:
        """Give back memory and threads; no batch may be running."""
        ...


def check_lengths(encodings: list[Encoding], longest: int) -> None:
    """Raises ValueError for a sequence that the model has no positions for: their values would be anything."""
    if (length := max(map(len, encodings))) > longest:
        raise ValueError(f"a sequence has {length} tokens, the model takes {longest}")


def share_of_cores(engine: Engine, streams: int) -> int:
    """Cores for each of so many batches that run side by side, at least one."""
    return max(1, engine.cores // streams)


@dataclass(frozen=True, slots=True)
class Need:
    """What an engine is wanted for."""

    checkpoint: Checkpoint
    """The model."""
    settings: Settings
    """What was asked for."""


@dataclass(frozen=True, slots=True)
class Offer:
    """How an engine would run a model on this machine."""

    name: str
    """Of the kind."""
    dtype: str
    """What it would compute in."""
    threads: int
    """All streams together."""
    streams: int
    """Batches that would run side by side."""
    device: str = "cpu"
    """`cpu`, `cuda`, `mps`, ..."""
    reservation: str | None = None
    """Why another kind that offers is to be taken before it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an engine can't run a model on this machine."""

    reason: str
    hint: str | None = None
    """The way out, if there is one."""
    is_others: bool = False
    """Whether such models are for another kind, so that there is nothing to tell if that one refuses too."""


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Of an engine, in computed tokens."""

    best: int
    """What does well before anything is measured."""
    trials: tuple[int, ...]
    """Those worth measuring, ascending."""
    splade_bytes: int
    """The most that SPLADE's logits `[*, V]` may take."""

    def fit(self, need: Need, logits_bytes: int) -> tuple[int, tuple[int, ...]]:
        """The best size, where it is not set by hand, and the trials; with SPLADE those that fit into the memory.

        logits_bytes: of SPLADE's logits for one token.
        """
        if need.checkpoint.pooling is not Pooling.SPLADE:
            return need.settings.limits.max_batch_tokens or self.best, self.trials
        most = max(1, self.splade_bytes // logits_bytes)
        return min(self.best, most), tuple(size for size in self.trials if size <= most)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, estimated."""

    weights: int
    """Of the files."""
    started: int
    """The process before its first request."""
    loaded: int
    """After requests of all lengths, many at a time."""
    peak: int
    """At its largest, pages of mapped files included."""


def refuse_graph(need: Need) -> Refusal | None:
    """Of a kind that runs no ONNX graphs; None for other models."""
    if need.checkpoint.onnx is None:
        return None
    what = f"`--engine {need.settings.engine.engine}`: {need.checkpoint.onnx.file} is an ONNX graph"
    return Refusal(f"{what}, which OpenVINO runs", "use `--engine auto`", is_others=True)


def refuse_unknown(need: Need, where: str = "") -> Refusal | None:
    """Of a kind that runs our architectures alone; None for models that a file of ours covers."""
    if need.checkpoint.facts.file is not None:
        return None
    reason = f"config.json: `model_type` is {need.checkpoint.model_type!r}, which is not supported{where}"
    return Refusal(reason, supported(), is_others=True)


class EngineKind(ABC):
    """Makes engines of one kind. Its module can be imported where the library that its engines need is missing."""

    name: ClassVar[str]
    """Of its engines."""
    option: ClassVar[str]
    """The word of `--engine` that asks for it."""

    @abstractmethod
    def offer(self, need: Need) -> Offer | Refusal:
        """How it would run the model on this machine, or why it can't. Warns of options it would ignore."""

    @abstractmethod
    def make(self, need: Need, offer: Offer) -> Engine:
        """An engine as offered, which may still be compiling when it is returned.

        Raises UnsupportedError or CheckpointError where the model can't be built, StartError where it does not fit.
        """

    def make_reference(self, need: Need, offer: Offer) -> Engine:
        """The same model in float32 on the CPU, with which an engine as offered is compared. Raises as `make`."""
        return self.make(need, replace(offer, dtype="float32", streams=1, device="cpu"))

    def inspect(self, need: Need) -> Network | None:
        """What is known of the network without reading its weights; None where no tensor can be looked at.

        Raises as `make`, as far as that can be known.
        """
        return inspect(need.checkpoint)

    def plan(self, need: Need) -> tuple[str, str] | None:
        """What would be computed, step by step: a summary, and all of it; None where that is not known before.

        Raises as `make`, as far as that can be known.
        """
        return None

    def memory(self, need: Need, offer: Offer, vocabulary: int | None, stored: int) -> Memory | None:
        """What the process would take; None where that was not measured.

        vocabulary: rows of the table of embeddings, None if not known; stored: bytes of the files of weights.
        """
        return None
