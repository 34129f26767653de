"""The engine for GPUs: a model computed by PyTorch on a CUDA, ROCm or MPS device, or, for want of one, on the CPU."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import Checkpoint
from ..errors import StartError, UnsupportedError
from ..models.build import Network, build
from ..ops.spec import Inputs, Layout, Value
from ..ops.torch import TorchOps, has_varlen
from ..ops.torch_sequences import Sequences
from ..types import Batch, Encoding, Output, Pooling
from .measure import Stopwatch, best_batch

DTYPES = ("float32", "float16", "bfloat16")
OVERFLOWING = ("t5", "gemma3_text")
"""Architectures whose hidden states outgrow float16 (its largest number is 65504)."""
BFLOAT16_CPUS = ("amx_bf16", "avx512_bf16")
"""Instructions with which a CPU is faster in bfloat16."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of batches. batch_tokens: before anything is measured; tuning: what is tried, in tokens; splade_bytes: the most
    that SPLADE's logits `[*, V]` may take."""

    batch_tokens: int
    tuning: tuple[int, ...]
    splade_bytes: int


CPU_SIZES = Sizes(1024, (512, 1024, 2048, 4096), 1 << 27)
GPU_SIZES = Sizes(16384, (2048, 4096, 8192, 16384, 32768), 1 << 30)
TUNING_LENGTH = 32
"""Tokens of the sequences that are measured."""


def choose_device() -> str:
    """The GPU that PyTorch finds (`cuda`, `mps`, ...; ROCm's is called `cuda`), else `cpu`."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else str(found.type)


def choose_dtype(wanted: str, device: str, model_type: str) -> str:
    """`auto` is float16 on GPUs, bfloat16 on CPUs that are faster in it, else float32. Raises UnsupportedError."""
    if wanted == "auto":
        if device != "cpu":
            return "bfloat16" if model_type in OVERFLOWING else "float16"
        capabilities = torch.cpu.get_capabilities()
        return "bfloat16" if any(capabilities.get(name) for name in BFLOAT16_CPUS) else "float32"
    if wanted not in DTYPES:
        raise UnsupportedError(f"`--dtype {wanted}`: PyTorch runs {', '.join(DTYPES)} only", hint="use `--dtype auto`")
    return wanted


class TorchEngine:
    """Runs one batch after the other on one device (see `base.Engine`).

    Batches are packed where PyTorch has a kernel for packed attention, else padded.
    """

    name = "torch"
    streams = 1

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        dtype: str,
        threads: int,
        layout: Literal["padded", "packed"] | None = None,
        builder: Callable[[Checkpoint, TorchOps], Network] | None = None,
    ) -> None:
        """layout: None for the one that is faster there; builder: makes the network in place of ours.

        Raises UnsupportedError or CheckpointError where the checkpoint can't be built (`models.network.build`), and
        StartError where the device's memory is too small for it.
        """
        torch.set_num_threads(threads)  # of the process: PyTorch knows no other
        self.dtype = dtype
        self._checkpoint = checkpoint
        self._device = torch.device(device)
        number_type = getattr(torch, dtype)
        self._packs = has_varlen(self._device, number_type) if layout is None else layout == "packed"
        self._ops = TorchOps(self._device, number_type, checkpoint.longest)
        try:
            with torch.inference_mode():
                self._network = (builder or build)(checkpoint, self._ops)
        except torch.OutOfMemoryError as problem:
            hint = "use `--dtype float16`" if dtype == "float32" else "free memory there, or use a smaller model"
            raise StartError(f"the model does not fit into the memory of the {device} device", hint=hint) from problem
        if device != "cpu" or dtype != "float32":
            checkpoint.weights.release()  # the engine has a copy of its own
        self.dimensions = self._network.dimensions
        self.vocabulary = self._network.vocabulary
        sizes = CPU_SIZES if device == "cpu" else GPU_SIZES
        most = sizes.tuning[-1]
        if checkpoint.pooling is Pooling.SPLADE:
            most = max(1, sizes.splade_bytes // number_type.itemsize // self.vocabulary)
        self.batch_tokens = min(sizes.batch_tokens, most)
        self._tuning_sizes = [size for size in sizes.tuning if size <= most]
        self._runs = 0
        self._lock = threading.Lock()

    def arrange(self, encodings: list[Encoding]) -> Batch:
        return Batch.pack(encodings) if self._packs else Batch.pad(encodings)

    def cost(self, longest: int, count: int, tokens: int) -> int:
        return tokens if self._packs else longest * count

    def run(self, batch: Batch, *, tokens: bool, alone: bool) -> Output:
        """See `base.Engine.run`. Raises MemoryError where the device's memory is too small for the batch."""
        try:
            return self._run(batch, tokens=tokens)
        except torch.OutOfMemoryError:
            pass  # its traceback holds the batch's tensors: they are free once this block is left
        torch.accelerator.empty_cache()
        raise MemoryError(f"the {self._device.type} device has too little memory for a batch of {batch.tokens} tokens")

    def tune_batch_tokens(self, seconds: float) -> None:
        if self._tuning_sizes:
            watch = Stopwatch(seconds)
            self.batch_tokens = best_batch(self._tuning_sizes, self._measure, watch, self.batch_tokens)

    def tune_streams(self, seconds: float) -> None:
        """There is one."""

    def close(self) -> None:
        del self._network, self._ops
        self._checkpoint.weights.release()
        if self._device.type != "cpu":
            torch.accelerator.empty_cache()

    def _measure(self, tokens: int) -> float:
        """Seconds for a batch of so many tokens, infinite if it is too large for the memory."""
        length = min(TUNING_LENGTH, self._checkpoint.max_input_length)
        batch = self.arrange([Encoding(np.ones(length, np.int32), None, 0)] * (tokens // length))
        start, runs = time.perf_counter(), self._runs
        try:
            self.run(batch, tokens=False, alone=True)
        except MemoryError:
            return math.inf
        if self._runs != runs + 1:
            raise InterruptedError
        return time.perf_counter() - start

    def _run(self, batch: Batch, *, tokens: bool) -> Output:
        with self._lock, torch.inference_mode():
            self._runs += 1
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
