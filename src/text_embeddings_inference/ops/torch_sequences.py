"""Where the sequences of a batch of PyTorch tensors lie: padded `[B, S, ...]` or packed `[T, ...]`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..types import Batch
from .spec import AttentionSpec, Rope

Integers = NDArray[np.integer[Any]]

GROUP_WIDTH = 32
"""Sequences of a packed batch whose lengths round up to the same multiple of it are padded together where they must."""


class Sequences(ABC):
    """Where the sequences of a batch lie, and what is computed from one token of a sequence and the next.

    positions: of each token in its sequence, int64 `[1, S]` or `[T]`; lengths: int64 `[B]`; rotations: sine and cosine
    of these positions, by Rope.
    """

    positions: Tensor

    def __init__(self, lengths: Integers, device: torch.device) -> None:
        self.device = device
        self.host_lengths = lengths.astype(np.int64)
        self.lengths = self._tensor(lengths)
        self.rotations: dict[Rope, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def of(batch: Batch, device: torch.device) -> Sequences:
        if batch.is_packed:
            return PackedSequences(batch.lengths, device, batch.attended)
        return PaddedSequences(batch.lengths, batch.input_ids.shape[1], device, batch.attended)

    @abstractmethod
    def first(self, x: Tensor) -> Tensor:
        """What the first token of each sequence has: `[*, D]` -> `[B, D]`."""

    @abstractmethod
    def last(self, x: Tensor) -> Tensor:
        """What the last one has."""

    @abstractmethod
    def sum(self, x: Tensor) -> Tensor:
        """The sum over the tokens of each sequence, in float32."""

    @abstractmethod
    def max(self, x: Tensor) -> Tensor:
        """The largest of each channel."""

    @abstractmethod
    def shift(self, x: Tensor, by: int) -> Tensor:
        """See `spec.Ops.shift`."""

    @abstractmethod
    def rotate_by_length(self, rope: Rope) -> NDArray[np.float32]:
        """Cosine and sine of each token's position, by the length of its sequence: `[2, *, R/2]`."""

    @abstractmethod
    def padded(self, function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        """Computes `function(sequences, *xs)`, which only knows padded batches: x `[b, s, ...]` -> `[b, s, ...]`."""

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.device)


class PaddedSequences(Sequences):
    """The rows of a padded batch. What is made of them, as masks, is made once for all layers."""

    def __init__(self, lengths: Integers, width: int, device: torch.device, attended: Integers | None = None) -> None:
        """attended: see `Batch`."""
        super().__init__(lengths, device)
        self.positions = torch.arange(width, device=device).unsqueeze(0)
        self._attended = lengths if attended is None else attended
        self._all_seen = bool((self._attended == width).all())
        self._has_unattended = attended is not None
        self._masks: dict[AttentionSpec, Tensor | None] = {}

    @cached_property
    def kept(self) -> Tensor:
        """Whether there is a token: bool `[B, S]`."""
        return self.positions < self.lengths.unsqueeze(1)

    @cached_property
    def distance(self) -> Tensor:
        """How far each key lies after each query: int64 `[S, S]`."""
        return self.positions - self.positions.T

    def first(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def last(self, x: Tensor) -> Tensor:
        return x[torch.arange(len(x), device=self.device), self.lengths - 1]

    def sum(self, x: Tensor) -> Tensor:
        return x.masked_fill(~self.kept.unsqueeze(2), 0).sum(1, dtype=torch.float32)

    def max(self, x: Tensor) -> Tensor:
        return x.masked_fill(~self.kept.unsqueeze(2), -math.inf).amax(1)

    def shift(self, x: Tensor, by: int) -> Tensor:
        sources = self.positions + by
        exists = (sources >= 0) & (sources < self.lengths.unsqueeze(1))
        moved = x[:, sources[0].clamp(0, x.shape[1] - 1)]
        return moved.masked_fill(~exists.unsqueeze(2), 0)

    def rotate_by_length(self, rope: Rope) -> NDArray[np.float32]:
        width = self.positions.shape[1]
        return np.stack([rope.table(length, width) for length in self.host_lengths.tolist()], 1)

    def padded(self, function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        return function(self, *xs)

    def mask(self, spec: AttentionSpec, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores: broadcasts to `[B, N, S, S]`, None for nothing."""
        if spec not in self._masks:
            bias, seen = self._bias(spec, dtype), self._seen(spec)
            if seen is not None:
                bias = torch.zeros((), dtype=dtype, device=self.device) if bias is None else bias
                bias = torch.where(seen, bias, -math.inf)
            self._masks[spec] = bias
        return self._masks[spec]

    def blind(self, spec: AttentionSpec) -> Tensor | None:
        """The queries whose window ends before the attended keys, bool `[B, 1, S, 1]`; None: there can't be one."""
        if not self._has_unattended or spec.window is None:
            return None
        beyond = self.positions >= self._tensor(self._attended).unsqueeze(1) + spec.window
        return beyond[:, None, :, None]

    def _seen(self, spec: AttentionSpec) -> Tensor | None:
        """The keys that a query may see, bool `[B or 1, 1, S or 1, S]`; None for all."""
        seen = None if self._all_seen else (self.positions < self._tensor(self._attended).unsqueeze(1))[:, None, None]
        if not spec.causal and spec.window is None:
            return seen
        near = torch.ones_like(self.distance, dtype=torch.bool)
        if spec.causal:
            near &= self.distance <= 0
        if spec.window is not None:
            near &= self.distance.abs() <= spec.window
        if seen is None:
            return near[None, None]
        seen = seen & near
        nothing = ~seen.any(-1, keepdim=True)  # as padding may: it sees itself then, or it would give NaN
        return seen | (nothing & (self.distance == 0))

    def _bias(self, spec: AttentionSpec, dtype: torch.dtype) -> Tensor | None:
        """The part that depends on the distance and on the head, `[N, S, S]`."""
        bias = None
        if spec.alibi is not None:
            slopes = torch.tensor(spec.alibi, dtype=torch.float32, device=self.device)
            bias = -slopes[:, None, None] * self.distance.abs()
        if spec.bias is not None:
            reach = spec.bias.reach
            relative = spec.bias.table.raw[self.distance.clamp(-reach, reach) + reach].permute(2, 0, 1)
            bias = relative if bias is None else bias + relative
        return None if bias is None else bias.to(dtype)


class PackedSequences(Sequences):
    """The sequences of a packed batch, one after another."""

    def __init__(self, lengths: Integers, device: torch.device, attended: Integers | None = None) -> None:
        """attended: see `Batch`."""
        super().__init__(lengths, device)
        self.attended = attended
        self._host_starts = self.host_lengths.cumsum() - self.host_lengths
        self.longest = int(lengths.max())
        self.positions = self._tensor(np.arange(lengths.sum()) - np.repeat(self._host_starts, lengths))

    @cached_property
    def starts(self) -> Tensor:
        """int64 `[B]`."""
        return self._tensor(self._host_starts)

    @cached_property
    def bounds(self) -> Tensor:
        """Where each sequence begins, and the end of the last one: int32 `[B + 1]`."""
        return F.pad(self.lengths.cumsum(0), (1, 0)).int()

    @cached_property
    def groups(self) -> tuple[list[tuple[Tensor, PaddedSequences]], Tensor]:
        """Sequences of like length as padded batches `[b, s]`, each with the places of its tokens in `[T]`; and the
        place of each token of `[T]` in all of these batches, one after another."""
        lengths, starts = self.host_lengths, self._host_starts
        groups = []
        back, size = np.empty(lengths.sum(), np.int64), 0
        widths = -(-lengths // GROUP_WIDTH)
        for width in np.unique(widths):
            own, begin = lengths[widths == width, None], starts[widths == width, None]
            columns = np.arange(own.max())
            places = begin + np.minimum(columns, own - 1)  # padding repeats the last token
            kept = columns < own
            back[places[kept]] = size + np.flatnonzero(kept)
            size += places.size
            attended = None if self.attended is None else self.attended[widths == width]
            rows = PaddedSequences(own[:, 0], len(columns), self.device, attended)
            groups.append((self._tensor(places), rows))
        return groups, self._tensor(back)

    def first(self, x: Tensor) -> Tensor:
        return x[self.starts]

    def last(self, x: Tensor) -> Tensor:
        return x[self.starts + self.lengths - 1]

    def sum(self, x: Tensor) -> Tensor:
        return torch.segment_reduce(x.float(), "sum", lengths=self.lengths, unsafe=True)

    def max(self, x: Tensor) -> Tensor:
        return torch.segment_reduce(x, "max", lengths=self.lengths, unsafe=True)

    def shift(self, x: Tensor, by: int) -> Tensor:
        sources = self.positions + by
        lengths = self.lengths.repeat_interleave(self.lengths, output_size=len(x))
        exists = (sources >= 0) & (sources < lengths)
        places = torch.arange(by, len(x) + by, device=self.device).clamp(0, len(x) - 1)
        return x[places].masked_fill(~exists.unsqueeze(1), 0)

    def rotate_by_length(self, rope: Rope) -> NDArray[np.float32]:
        return np.concatenate([rope.table(length) for length in self.host_lengths.tolist()], 1)

    def padded(self, function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
        groups, back = self.groups
        parts = [function(rows, *(x[places] for x in xs)).flatten(0, 1) for places, rows in groups]
        return torch.cat(parts)[back]
