"""Memory that ends where a page ends which nobody may touch: what reads or writes past it ends the process."""

from __future__ import annotations

import ctypes as c
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text_embeddings_inference.native import pack

PROT_NONE = 0
PAGE = mmap.PAGESIZE


def guarded_memory(size: int) -> tuple[mmap.mmap, int]:
    """Memory, and the byte from which on there are `size` bytes up to the page that can't be touched."""
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    address = np.frombuffer(memory, np.uint8).ctypes.data + pages * PAGE
    if c.CDLL(None).mprotect(c.c_void_p(address), c.c_size_t(PAGE), PROT_NONE):
        raise OSError("the page can't be protected")
    return memory, pages * PAGE - size


def at_the_end(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of the array, C-contiguous, at the end of such memory."""
    memory, begin = guarded_memory(max(array.nbytes, 1))
    copy: NDArray[Any] = np.frombuffer(memory, np.uint8, array.nbytes, begin).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class GuardedPacker(pack.Packer):
    """Packs weights into such memory."""

    def pack(self, threads: int, release: Callable[[], None] = lambda: None) -> None:
        self.place(*guarded_memory(self.size))
        super().pack(threads, release)
