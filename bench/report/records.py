"""What a run found out: everything that is saved, and the medians that tables and charts are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec

from bench.load.server import Memory
from bench.load.wrk import Measurement
from bench.report.machine import Machine

FORMAT = 2
"""Of the saved JSON. Files of another format stay where they are and are left out of docs/performance.md."""

OURS = "this server"
ENGINES = {"auto": OURS, "native": f"{OURS} on native", "openvino": f"{OURS} on OpenVINO"}
"""What our server is called with an engine, by the word of `--engine`."""
MINILM = "MiniLM-L6"
BASE = "BERT-base shape"
DTYPES = ("float32", "bfloat16", "int16", "int8")


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one load and the state of the machine just before it.

    server_cores: processor time of the server per second; waste: tokens computed for each token asked for.
    None: unknown.
    """

    measurement: Measurement
    sgemm: float
    server_cores: float | None
    waste: float | None


@dataclass(frozen=True, slots=True)
class InProcess:
    """One load of the native engine and of OpenVINO in one process, in turn: milliseconds, one per round.

    One thread is timed by the processor's time, several by the clock. operations: multiplications and additions of the
    model's products for the load, None where its shape is not known; peak: operations/s that the same number of
    threads does in `dtype` on registers alone, one per round, empty where that is not known.
    """

    load: str
    threads: int
    dtype: str
    openvino_dtype: str
    operations: float | None
    native_ms: list[float] = field(default_factory=list)
    openvino_ms: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How many times as fast as OpenVINO: the median of the rounds."""
        return median(theirs / ours for ours, theirs in zip(self.native_ms, self.openvino_ms, strict=True))

    @property
    def share_of_peak(self) -> float | None:
        """In percent: both medians, as a round of the peak is short."""
        if self.operations is None or not self.peak:
            return None
        return 100 * self.operations / (median(self.native_ms) / 1e3) / median(self.peak)


@dataclass(frozen=True, slots=True)
class Subject:
    """One contender with one model: what was started, and all that was measured of it.

    how: `server` or `in process`; versions: of what it is made of, beyond the machine's; info: a server's answer to
    /info; engine: tokens/s of our engine alone in process, one per round of `texts.EQUAL`; start: seconds to the first
    answer, one per start; memory: after all loads; in_process: the native engine in this number type beside OpenVINO.
    """

    name: str
    model: str
    dtype: str
    how: str
    command: str
    versions: dict[str, str] = field(default_factory=dict)
    info: dict[str, object] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    engine: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    memory: Memory | None = None
    in_process: list[InProcess] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Whether it is our server, on whatever engine."""
        return self.name in ENGINES.values()

    @property
    def label(self) -> str:
        """Name and number type; some names say the type already."""
        return f"{self.name}, {self.dtype}"


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What a request costs a server whose engine computes nothing: processor time, and how long tokenization takes.

    requests_per_second: with that load, as fast as the server can.
    """

    load: str
    requests_per_second: float
    cpu_ms: float
    tokenization_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    kind: `bench` (our server, by engine and number type) or `peers`; quick: too short to be trusted; seconds,
    repetitions: of each load, at least, and how often; sgemm: GFLOP/s of every sample; left_out: what was not measured,
    and why; ceiling: wrk against a server that answers at once; layer: the server over a fake engine.
    """

    kind: str
    machine: Machine
    quick: bool
    seconds: float
    repetitions: int
    sgemm: list[float]
    subjects: list[Subject]
    left_out: dict[str, str] = field(default_factory=dict)
    ceiling: Measurement | None = None
    layer: list[LayerCost] = field(default_factory=list)
    format: int = FORMAT

    def of_model(self, model: str) -> list[Subject]:
        return [subject for subject in self.subjects if subject.model == model]

    @property
    def chosen(self) -> list[Subject]:
        """Whom goals are for: this server as `auto` has it, or else the first one that was measured."""
        names = [subject.name for subject in self.subjects]
        name = OURS if OURS in names else names[0]
        return [subject for subject in self.subjects if subject.name == name]


@dataclass(frozen=True, slots=True)
class Row:
    """A load: medians over its rounds (errors: the sum)."""

    load: str
    requests_per_second: float
    tokens_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    waste: float | None
    server_cores: float | None
    client_cores: float


def summary(load: str, rounds: Sequence[Round]) -> Row:
    """The row of one load."""

    def middle(value: Callable[[Round], float | None]) -> float | None:
        known = [v for v in map(value, rounds) if v is not None]
        return median(known) if known else None

    def of_load(value: Callable[[Measurement], float]) -> float:
        return median(value(r.measurement) for r in rounds)

    return Row(
        load=load,
        requests_per_second=of_load(lambda m: m.requests_per_second),
        tokens_per_second=of_load(lambda m: m.tokens_per_second),
        p50_ms=of_load(lambda m: m.p50_ms),
        p95_ms=of_load(lambda m: m.p95_ms),
        p99_ms=of_load(lambda m: m.p99_ms),
        errors=sum(r.measurement.errors for r in rounds),
        waste=middle(lambda r: r.waste),
        server_cores=middle(lambda r: r.server_cores),
        client_cores=of_load(lambda m: m.client_cores),
    )


def save(report: Report, folder: Path) -> Path:
    """Writes DATE-CPU-KIND.json; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{report.machine.date[:10]}-{report.machine.slug}-{report.kind}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return file


def read(file: Path) -> Report | None:
    """A saved run; None if it is of another format."""
    content = msgspec.json.decode(file.read_bytes())
    return msgspec.convert(content, Report) if content.get("format") == FORMAT else None
