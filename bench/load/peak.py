"""How fast this machine's cores multiply and add at most, and how many of these operations a model needs for a text."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from text_embeddings_inference.machine import cpu_flags
from text_embeddings_inference.native.build import find_compiler, runnable_levels

SOURCE = Path(__file__).with_name("peak.c")
LOOPS = 500_000
"""A few tens of milliseconds."""
ASK_FOR = 158, 0x1023, 18
"""Of Linux on x86-64: arch_prctl, permission, the data of tiles (Documentation/arch/x86/xstate.rst of the kernel)."""


class Peaks:
    """Loops on registers alone, by number type."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        """threads: the most that run at once."""
        self._library = library
        self._pool = ThreadPoolExecutor(threads)

    def operations_per_second(self, dtype: str, threads: int, clock: Callable[[], float]) -> float | None:
        """Multiplications and additions, all threads together; None where nothing is known of the number type.

        clock: seconds, by which the loops are timed.
        """
        if not hasattr(self._library, f"peak_{dtype}"):
            return None
        loop = getattr(self._library, f"peak_{dtype}")
        loop.restype, loop.argtypes = ctypes.c_double, [ctypes.c_long]
        start = clock()
        if threads == 1:
            done: float = loop(LOOPS)
        else:
            done = sum(self._pool.map(loop, [LOOPS] * threads))
        return done / (clock() - start)

    def close(self) -> None:
        self._pool.shutdown()


@contextmanager
def peaks(threads: int) -> Iterator[Peaks | None]:
    """The loops for this CPU, compiled now; None where there is no compiler, or they can't be compiled or run.

    threads: the most that run at once.
    """
    compiler, flags = find_compiler(), cpu_flags()
    name, own = list(runnable_levels(flags).items())[-1]
    if compiler is None or (name == "amx" and ctypes.CDLL(None).syscall(*ASK_FOR)):
        yield None
        return
    with TemporaryDirectory(prefix="bench-peak-") as folder:
        out = Path(folder) / "peak.so"
        if not compile_loops(out, compiler, own):
            yield None
            return
        found = Peaks(ctypes.CDLL(str(out)), threads)
        try:
            yield found
        finally:
            found.close()


def compile_loops(out: Path, compiler: Sequence[str], flags: Sequence[str]) -> bool:
    """Whether the compiler could do it. flags: of a level."""
    command = [*compiler, "-O2", "-fPIC", "-shared", *flags, str(SOURCE), "-o", str(out)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def operations_of(model: Path, lengths: Sequence[int]) -> float | None:
    """Multiplications and additions of all products for texts of these lengths in tokens, without padding.

    Of BERT's shape, with width D, inner width I, and L layers: 2 L (4 D^2 + 2 D I) for each token, and 4 T D L for
    each token's attention to the T of its text; None for other models. What the pooler would add is not computed.
    """
    config = json.loads((model / "config.json").read_text())
    if config.get("model_type") != "bert":
        return None
    width, inner, layers = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    weights = layers * (4 * width**2 + 2 * width * inner)
    return float(sum(2 * weights * length + 4 * layers * width * length**2 for length in lengths))
