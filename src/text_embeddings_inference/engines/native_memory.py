"""How much memory a server takes with the native engine: fitted to servers that were measured (docs/log.md)."""

from __future__ import annotations

from math import prod

from .base import Memory, Need, Offer
from .openvino_kind import find_matrices

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "int16": 2, "int8": 1}
"""Of packed weights, by dtype. Those stored in bfloat16 have 2 in float32 too; which products int8 keeps in 16 bits is
known only when they were measured (of all-MiniLM-L6-v2 one in 24)."""

MB = 1_000_000
PROCESS_BYTES = 68 * MB
"""The interpreter and the server, without a model."""
BATCH_ROWS = 25 * 1024
"""Floats of a model's width that a batch takes: 1,024 tokens, each with some values of that width, and room to grow."""
OTHERS_BYTES = 8 * MB
"""What load takes besides."""
READ_BYTES = 64 * MB
"""Of the checkpoint, in memory while it is packed (`native.pack.RELEASED_BYTES`)."""


def estimate(need: Need, offer: Offer, vocabulary: int | None, stored: int) -> Memory:
    """Packed weights are in memory once, as pages of a file that other processes share. Tables of embeddings stay in
    the checkpoint's file, and are read into memory as their words come up. The first start reads the matrices that it
    packs, some at a time, and a model that is not computed in float32 is compared with one that is: all given back.
    """
    weights = need.checkpoint.weights
    matrices = find_matrices(need.checkpoint, vocabulary)
    count = sum(prod(weights.shape(name)) for name in matrices) if len(weights) else stored // 4
    halves = sum(prod(weights.shape(name)) for name in matrices if weights.dtype(name) == "BF16")
    exact = 4 * count - 2 * halves
    packed = exact if offer.dtype == "float32" else count * NUMBER_BYTES[offer.dtype]
    read = sum(_bytes(need, name) for name in matrices) if len(weights) else stored
    width = max((weights.shape(name)[-1] for name in weights if weights.shape(name)[:1] == (vocabulary,)), default=0)
    started = PROCESS_BYTES + packed
    loaded = started + max(0, stored - read) + offer.streams * BATCH_ROWS * width + OTHERS_BYTES
    compared = 0 if offer.dtype == "float32" else exact
    return Memory(stored, started, loaded, max(loaded, started + min(read, READ_BYTES) + compared))


def _bytes(need: Need, name: str) -> int:
    """Of a tensor in its file."""
    weights = need.checkpoint.weights
    return prod(weights.shape(name)) * {"F64": 8, "F32": 4}.get(weights.dtype(name), 2)
