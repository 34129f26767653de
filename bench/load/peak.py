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
OTHER_UNITS = {"bfloat16": "amx_bf16", "int8": "amx_int8"}
"""The flag of CPUs that compute in a number type faster than by vectors. peak.c has nothing for these units."""


class Peaks:
    """Loops on registers alone, by number type."""

    def __init__(self, library: ctypes.CDLL, flags: set[str], threads: int) -> None:
        self._library, self._flags = library, flags
        self._pool = ThreadPoolExecutor(threads)
        self.threads = threads

    def operations_per_second(self, dtype: str, threads: int, clock: Callable[[], float]) -> float | None:
        """Multiplications and additions, all threads together; None where nothing is known of the number type.

        clock: seconds, by which the loops are timed.
        """
        if OTHER_UNITS.get(dtype) in self._flags or not hasattr(self._library, f"peak_{dtype}"):
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
    """The loops for this CPU, compiled now; None where there is no compiler, or they can't be compiled.

    threads: the most that run at once.
    """
    compiler, flags = find_compiler(), cpu_flags()
    if compiler is None:
        yield None
        return
    level = list(runnable_levels(flags).values())[-1]
    with TemporaryDirectory(prefix="bench-peak-") as folder:
        out = Path(folder) / "peak.so"
        command = [*compiler, "-O2", "-fPIC", "-shared", *level, str(SOURCE), "-o", str(out)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            yield None
            return
        found = Peaks(ctypes.CDLL(str(out)), flags, threads)
        try:
            yield found
        finally:
            found.close()


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
