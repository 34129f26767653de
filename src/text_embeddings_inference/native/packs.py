"""Which file has the packed weights of a plan, and when it is written.

A pack is found by a digest of all that it depends on: the kernels (level, and their library's content), the dtype that
was asked for, and of each product the shapes, types and origins of its weights: a place in a file of the checkpoint or,
for what was computed at load, the content itself. The content of those files is the second half of the key
(`contents.py`): the same checkpoint in another place has the same packs.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import BFLOAT16
from .contents import File, read, remembered
from .folder import tidy, touch
from .library import ABI, Level
from .pack import Packer
from .pack_file import VERSION, ForeignError, Pack, read_pack, write_pack
from .steps import Step

logger = logging.getLogger(__name__)

LEAST_BYTES = 1 << 20
"""Less is packed sooner than a file is found."""


@dataclass(frozen=True, slots=True)
class Packs:
    """What packed weights are made of, and where they are kept."""

    folder: Path | None
    """None: nowhere."""
    files: tuple[File, ...]
    """Of the checkpoint: those that weights may lie in."""
    asked: bool = False
    """Whether the folder was asked for, so that what goes wrong with it is worth a warning."""

    def release(self) -> None:
        """Gives back the memory of pages of the files; they are read again when they are touched."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for file in self.files:
                file.madvise(mmap.MADV_DONTNEED)


class PlanPack:
    """The packed weights of one plan, to be found and kept."""

    def __init__(
        self, packs: Packs, folder: Path, level: Level, dtype: str, products: Sequence[Step], threads: int
    ) -> None:
        """dtype: the one that was asked for."""
        self._packs = packs
        self._folder = folder
        self._level = level
        self._products = products
        self._threads = threads
        self._files: dict[File, int] = {}
        self._plan = self._digest(dtype)
        self._keeper: threading.Thread | None = None

    def find(self, packer: Packer) -> dict[Step, str] | None:
        """The formats of all products, which lie in the pack's memory then; None: there is no such pack.

        What has its name and is something else is told and passed over."""
        try:
            if not any(self._folder.glob(f"weights-{self._plan[:16]}-*.pack")):
                return None  # so that a first start need not wait for what the checkpoint contains
            path, key = self._place(self._threads)
            count = sum(len(step.weights) for step in self._products)
            pack = read_pack(self._level.library, path, key, count, self._threads)
            formats = self._use(packer, pack)
        except FileNotFoundError:
            return None
        except ForeignError as problem:
            logger.warning("packed weights are made anew: %s: %s", path, problem)
            return None
        except OSError as problem:
            self._tell("packed weights can't be read: %s", problem)
            return None
        touch(path)
        logger.debug("packed weights: %s", path)
        return formats

    def keep(self, packer: Packer, formats: Mapping[Step, str]) -> None:
        """Writes what was packed to the folder, in a thread of its own."""
        if packer.size >= LEAST_BYTES:
            kept = [(formats[step], weights) for step in self._products for weights in step.weights]
            products = [(format_, packer.matrix(weights, format_).norm) for format_, weights in kept]
            self._keeper = threading.Thread(target=self._keep, args=(packer, products), name="keep-weights")
            self._keeper.start()

    def wait(self) -> None:
        """Until nothing is written any more."""
        if self._keeper is not None:
            self._keeper.join()

    def _use(self, packer: Packer, pack: Pack) -> dict[Step, str]:
        """Lets the weights be those of the pack. Raises ForeignError for one that does not fit."""
        if not all(self._level.group(format_) for format_ in pack.formats):
            raise ForeignError("it has formats of other kernels")
        kept = [(step, weights) for step in self._products for weights in step.weights]
        formats = {step: format_ for (step, _), format_ in zip(kept, pack.formats, strict=True)}
        matrices = [packer.matrix(weights, formats[step]) for step, weights in kept]
        if packer.size != len(pack.memory) - pack.begin:
            packer.clear()
            raise ForeignError("it has other sizes")
        packer.place(pack.memory, pack.begin)
        for matrix, norm in zip(matrices, pack.norms, strict=True):
            matrix.norm = norm
        return formats

    def _keep(self, packer: Packer, products: Sequence[tuple[str, float]]) -> None:
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path, key = self._place(threads=1)  # the others have requests by now
            packer.write(lambda memory: write_pack(self._level.library, path, key, products, memory, threads=1))
            tidy(folder, path)
            logger.debug("packed weights are kept: %s", path)
        except OSError as problem:
            self._tell("packed weights can't be kept: %s", problem)

    def _place(self, threads: int) -> tuple[Path, bytes]:
        """The pack's file, and its key. Raises OSError where the checkpoint's content can't be read."""
        folder = self._folder
        found = (remembered(folder, file) or read(folder, file, threads) for file in self._files)
        content = hashlib.sha256("\n".join(found).encode()).hexdigest()
        key = hashlib.sha256(f"{self._plan} {content}".encode()).digest()
        return folder / f"weights-{self._plan[:16]}-{content[:16]}.pack", key

    def _digest(self, dtype: str) -> str:
        """Of all but the content of the checkpoint's files."""
        kernels = hashlib.sha256(Path(self._level.library._name).read_bytes()).hexdigest()
        lines = [f"{VERSION} {ABI} {kernels} {self._level.name} {dtype}"]
        for step in self._products:
            arrays = [array for weights in step.weights for array in (*weights.matrices, *weights.biases)]
            origins = " ".join("none" if array is None else self._origin(array) for array in arrays)
            lines.append(f"{step} {step.out.store.rows.value} {origins}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _origin(self, array: NDArray[Any]) -> str:
        """Where an array lies in the checkpoint, or what it contains."""
        form = f"{'bfloat16' if array.dtype == BFLOAT16 else array.dtype.str}{array.shape}"
        for file in self._packs.files:
            place = array.ctypes.data - file.address
            if 0 <= place < len(file):
                return f"{form}{array.strides}@{self._files.setdefault(file, len(self._files))}+{place}"
        return f"{form}={hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"

    def _tell(self, message: str, problem: OSError) -> None:
        logger.log(logging.WARNING if self._packs.asked else logging.INFO, message, problem)
