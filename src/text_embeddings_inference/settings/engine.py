"""What runs the model, and in which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..machine import usable_cpus
from .options import ENGINE, AutoInteger, File, Flag, Integer, Option, words

ENGINES = ("native", "openvino", "torch")
"""The words that stand for `engines.registry.KINDS`."""
CPU_LEVELS = (
    *("plain", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx"),
    *("neon", "neon_dot", "neon_bf16"),
)
"""The names of `native.build.LEVELS`, of all machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What runs the model, and in which numbers."""

    engine: str = Option(
        words("auto", *ENGINES),
        ENGINE,
        "What runs the model: our own kernels or OpenVINO on CPUs, PyTorch on GPUs",
        details="auto: PyTorch where it is installed and finds a GPU, else our own kernels where they are the faster "
        "ones, else OpenVINO. native: our own kernels, compiled once where they were not installed with the package.",
    ).field("auto")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int16", "int8"] = Option(
        words("auto", "float32", "bfloat16", "float16", "int16", "int8"),
        ENGINE,
        "Number type of weights and computation",
        details="auto: float16 on GPUs; on CPUs bfloat16 if they compute it natively, else float32, or int16 with "
        "`--engine native`. int16: products of 16-bit integers, nearer to float32 than bfloat16 is; those that would "
        "lose too much stay in float32 (`--engine native` only). int8: weights in 8 bits, with VNNI or "
        "`--engine native` activations too. How near the vectors stay to those of float32 is measured at start, and "
        "logged.",
    ).field("auto")
    threads: int = Option(
        Integer(1),
        ENGINE,
        "Threads of the engine, all streams together",
        details="CPUs are counted within the process's affinity mask and cgroup quota.",
        default_text="usable CPUs",
    ).field(factory=usable_cpus)
    cpu_level: str = Option(
        words("auto", *CPU_LEVELS),
        ENGINE,
        "Instructions that our own kernels are made of; to compare and to diagnose",
        details="auto: the best ones that this CPU has and that pass their test on it. Others that it does not have "
        "are refused.",
    ).field("auto")
    streams: int | None = Option(
        AutoInteger(1),
        ENGINE,
        "Batches the engine runs at the same time, each on its share of the threads",
        details="Several streams answer more requests per second with small models, one answers a single request "
        "soonest. A number, or `auto` to let the engine choose.",
        default_text="auto",
    ).field(None)
    warmup: Literal["off", "fast", "full"] = Option(
        words("off", "fast", "full"),
        ENGINE,
        "What is measured to choose the size of batches and the number of streams",
        details="fast: half a second's worth, in the first quiet moment after the start. full: all that helps, before "
        "the server is ready. off: nothing. What is set by `--max-batch-tokens` and `--streams` stays.",
    ).field("fast")
    compile_cache: Path | None = Option(
        File(),
        ENGINE,
        "Folder for what is made of a model once: starts are faster, and the weights take their size on disk once more",
        details="The native engine keeps packed weights there, which processes share; OpenVINO compiled models, which "
        "take the memory of the weights once more.",
        default_text="for the native engine text-embeddings-inference in the user's cache folder, else none",
        conflicts=("no_compile_cache",),
    ).field(None)
    no_compile_cache: bool = Option(
        Flag(), ENGINE, "Keep no packed weights: the native engine makes them at every start"
    ).field(False)
