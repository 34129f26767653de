"""The engine for GPUs: a model computed by PyTorch on a CUDA, ROCm or MPS device, or, for want of one, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import Checkpoint, Facts
from ..errors import StartError
from ..models.build import Network, build
from ..ops.spec import Inputs, Layout, Value
from ..ops.torch import TorchOps, has_varlen
from ..ops.torch_sequences import Sequences
from ..types import Batch, Encoding, Output
from .base import BatchSizes, Capacity, Need, Offer, check_lengths

BFLOAT16_CPUS = ("amx_bf16", "avx512_bf16")
"""Instructions with which a CPU is faster in bfloat16."""
CPU_SIZES = BatchSizes(1024, (512, 1024, 2048, 4096), splade_bytes=1 << 27)
GPU_SIZES = BatchSizes(16384, (2048, 4096, 8192, 16384, 32768), splade_bytes=1 << 30)


def choose_device() -> str:
    """The GPU that PyTorch finds (`cuda`, `mps`, ...; ROCm's is called `cuda`), else `cpu`."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else str(found.type)


def choose_dtype(wanted: str, device: str, facts: Facts) -> str:
    """`auto` is float16 on GPUs, bfloat16 on CPUs that are faster in it, else float32."""
    if wanted != "auto":
        return wanted
    if device != "cpu":
        return "bfloat16" if facts.overflows_float16 else "float16"
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if any(capabilities.get(name) for name in BFLOAT16_CPUS) else "float32"


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Has what this thread asks of PyTorch computed by so many.

    PyTorch keeps one number for the process, which a thread takes over when it first computes; another engine's
    threads have theirs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchEngine:
    """Runs one batch after the other on one device (see `base.Engine`).

    Batches are packed where PyTorch has a kernel for packed attention, else padded.
    """

    def __init__(
        self,
        need: Need,
        offer: Offer,
        *,
        layout: Literal["padded", "packed"] | None = None,
        builder: Callable[[Checkpoint, TorchOps], Network] = build,
    ) -> None:
        """layout: None for the one that is faster there; builder: makes the network in place of ours.

        Raises UnsupportedError or CheckpointError where the checkpoint can't be built (`models.build`), and StartError
        where the device's memory is too small for it.
        """
        self.longest = need.checkpoint.longest
        self.cores = offer.threads
        self._weights = need.checkpoint.weights
        self._device = torch.device(offer.device)
        number_type = getattr(torch, offer.dtype)
        self._packs = has_varlen(self._device, number_type) if layout is None else layout == "packed"
        self._ops = TorchOps(self._device, number_type, self.longest)
        try:
            with torch.inference_mode(), use_threads(self.cores):
                network = builder(need.checkpoint, self._ops)
        except torch.OutOfMemoryError as problem:
            hint = "use `--dtype float16`" if offer.dtype == "float32" else "free memory there, or use a smaller model"
            raise StartError(
                f"the model does not fit into the memory of the {offer.device} device", hint=hint
            ) from problem
        if offer.device != "cpu" or offer.dtype != "float32":
            self._weights.release()  # the engine has a copy of its own
        self._network: Network | None = network
        self.dimensions = network.dimensions
        self.vocabulary = network.vocabulary
        sizes = CPU_SIZES if offer.device == "cpu" else GPU_SIZES
        best, self.trials = sizes.fit(need, logits_bytes=number_type.itemsize * self.vocabulary)
        self.capacity = Capacity(1, best)
        self._lock = threading.Lock()

    def arrange(self, encodings: list[Encoding]) -> Batch:
        check_lengths(encodings, self.longest)
        return Batch.pack(encodings) if self._packs else Batch.pad(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return tokens if self._packs else longest * count

    def run(self, batch: Batch, *, tokens: bool = False, cores: int | None = None) -> Output:
        """See `base.Engine.run`. Raises MemoryError where the device's memory is too small for the batch."""
        try:
            return self._run(batch, tokens=tokens, threads=min(cores or self.cores, self.cores))
        except torch.OutOfMemoryError:
            pass  # its traceback holds the batch's tensors: they are free once this block is left
        torch.accelerator.empty_cache()
        raise MemoryError(f"the {self._device.type} device has too little memory for a batch of {batch.tokens} tokens")

    def prepare(self, streams: int) -> None:
        """One batch runs after the other: nothing is needed for it."""

    def close(self) -> None:
        self._network = None  # and with it the weights
        self._weights.release()
        if self._device.type != "cpu":
            torch.accelerator.empty_cache()

    def _run(self, batch: Batch, *, tokens: bool, threads: int) -> Output:
        with self._lock, torch.inference_mode(), use_threads(threads):
            assert self._network is not None, "the engine is closed"
            results = self._network.run(self._ops, self._inputs(batch))
            pooled = self._to_host(results.pooled.raw)
            hidden = self._to_host(results.tokens.raw) if tokens and results.tokens is not None else None
            done = torch.cuda.Event() if self._device.type == "cuda" else None
            if done is not None:
                done.record()
        if done is not None:
            done.synchronize()  # without the lock: the next batch is prepared meanwhile
        return Output(pooled.numpy(), None if hidden is None else hidden.numpy())

    def _inputs(self, batch: Batch) -> Inputs:
        type_ids = np.zeros((1,) * batch.input_ids.ndim, np.int32) if batch.type_ids is None else batch.type_ids
        ids, types = (Value(torch.from_numpy(array).to(self._device)) for array in (batch.input_ids, type_ids))
        return Inputs(ids, types, Layout(Sequences.of(batch, self._device)))

    def _to_host(self, x: Tensor) -> Tensor:
        """A float32 copy in the computer's memory; on CUDA it is there when what was asked of the device is done."""
        x = x.float().contiguous()  # a view would keep all hidden states
        if self._device.type != "cuda":
            return x.cpu()
        return torch.empty(x.shape, pin_memory=True).copy_(x, non_blocking=True)
