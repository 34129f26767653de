"""The weights of a folder: one file or several, safetensors or pickled, as one mapping from names to tensors."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from ...errors import CheckpointError, UnsupportedError
from ..files import DOWNLOAD_AGAIN
from ..json_files import describe, read_object
from .safetensors import read_safetensors
from .tensor import FLOATS, MappedFile, Tensor, map_file

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The names under which weights are looked for, in this order."""


class Weights:
    """The tensors of a checkpoint, mapped into memory and read when they are touched.

    Raises `CheckpointError` when a tensor is in two files.
    """

    def __init__(self, tensors: Iterable[Tensor], maps: Iterable[MappedFile]) -> None:
        self._tensors: dict[str, Tensor] = {}
        self.files = tuple(maps)
        """All files, in memory."""
        for tensor in tensors:
            other = self._tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise CheckpointError(f"tensor `{tensor.name}` is in {other.file} and in {tensor.file}")

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(self._tensors)

    def replace(self, tensors: Mapping[str, Tensor], files: Iterable[MappedFile]) -> Weights:
        """The same with others in place of some of the tensors. files: what those were made of, beside these."""
        return Weights([tensors.get(name, tensor) for name, tensor in self._tensors.items()], (*self.files, *files))

    def file(self, name: str) -> Path:
        """The file the tensor is in."""
        return self._tensor(name).file

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).shape

    def dtype(self, name: str) -> str:
        """The stored type, as safetensors names it: `F32`, `F16`, `BF16`, `I64`, ..."""
        return self._tensor(name).dtype

    def array(self, name: str) -> NDArray[Any]:
        """The values as float32; F32 is not copied. Raises as `check_float`."""
        self.check_float(name)
        return self._tensor(name).array()

    def stored(self, name: str) -> NDArray[Any]:
        """The values in the type that they are stored in, BF16 as `types.BFLOAT16`: nothing is read or converted.

        Raises as `check_float`."""
        self.check_float(name)
        return self._tensor(name).stored

    def raw(self, name: str) -> NDArray[Any]:
        """The values in the type that they are stored in, whatever it is."""
        return self._tensor(name).stored

    def is_float(self, name: str) -> bool:
        return self.dtype(name) in FLOATS

    def check_float(self, name: str) -> None:
        """Raises UnsupportedError for integers and booleans, which no parameter of a model is."""
        if self.dtype(name) not in FLOATS:
            raise UnsupportedError(
                f"tensor `{name}` in {self.file(name)} is {self.dtype(name)}: quantized weights are not supported",
                hint="take the checkpoint in a float type; `--dtype int8` quantizes it at load",
            )

    def part(self, names: Iterable[str]) -> Weights:
        """These tensors alone, of the same files. Raises `CheckpointError` for one that is not there."""
        return Weights([self._tensor(name) for name in names], self.files)

    def release(self) -> None:
        """Gives back the memory of pages that were read; arrays stay valid and read them again when touched.

        What was written into an array of `array` is lost. Does nothing on systems without `madvise`.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for data in self.files:
                data.madvise(mmap.MADV_DONTNEED)

    def _tensor(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointError(f"there is no tensor `{name}` in the weights") from None


class StoredWeights:
    """The same tensors for an engine that takes them in the types they are stored in."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def names(self) -> Iterable[str]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(name)

    def array(self, name: str) -> NDArray[Any]:
        return self._weights.stored(name)


def open_weights(folder: Path) -> Weights:
    """The weights of `folder`: the first of `WEIGHT_FILES` that is there.

    Raises `CheckpointError` when there is none or a file is damaged.
    """
    name = next((name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if name is None:
        problem = f"no weights in {folder}: looked for {', '.join(f'`{name}`' for name in WEIGHT_FILES)}"
        raise CheckpointError(problem, hint=DOWNLOAD_AGAIN)
    return _open_shards(folder, name) if name.endswith(".index.json") else open_weight_files(folder / name)


def open_weight_files(*paths: Path) -> Weights:
    """The tensors of the files together. The suffix tells the format: `.safetensors`, or pickled by torch.save."""
    maps = [map_file(path) for path in paths]
    tensors: list[Tensor] = []
    for path, data in zip(paths, maps, strict=True):
        tensors += _read(path, data)
    if not tensors:
        raise CheckpointError(f"there is no tensor in {', '.join(map(str, paths))}", hint=DOWNLOAD_AGAIN)
    return Weights(tensors, maps)


def _read(path: Path, data: MappedFile) -> list[Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path, data)
    from .pickle import read_pickle  # takes 5 ms, for few checkpoints

    return read_pickle(path, data)


def read_shard_names(folder: Path, index: str) -> dict[str, str]:
    """The `weight_map` of an index file: tensor name -> name of the file beside the index.

    Raises `CheckpointError` when it is not such a map, or names a file outside of the folder.
    """
    weight_map = read_object(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"`weight_map` of `{index}` in {folder} is missing or empty", hint=DOWNLOAD_AGAIN)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or shard in ("", "..") or PurePosixPath(shard).name != shard:
            raise CheckpointError(
                f"`weight_map` of `{index}` in {folder}: no file name for `{tensor}`: {describe(shard)}"
            )
    return weight_map


def _open_shards(folder: Path, index: str) -> Weights:
    weight_map = read_shard_names(folder, index)
    weights = open_weight_files(*(folder / shard for shard in sorted(set(weight_map.values()))))
    for tensor, shard in weight_map.items():
        if tensor not in weights or weights.file(tensor).name != shard:
            problem = f"tensor `{tensor}` is not in {folder / shard}, where `{index}` says it is"
            raise CheckpointError(problem, hint=DOWNLOAD_AGAIN)
    return weights
