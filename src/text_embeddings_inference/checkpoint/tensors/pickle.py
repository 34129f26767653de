"""Reads the files of torch.save without torch, and without running what they contain.

Formats: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py. A zip archive holds the pickle
(`data.pkl`) and, uncompressed, one file per storage (`data/<key>`). Before torch 1.6 it was a row of pickles (magic
number, protocol, system, the object, keys of the storages) followed by the storages, each with its number of elements
in front.

A pickle is a program. Here it may call what makes a dictionary of tensors (`_Unpickler.find_class`), and nothing else.
"""

from __future__ import annotations

import collections
import mmap
import pickle
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from ...errors import CheckpointError, UnsupportedError
from ..files import DOWNLOAD_AGAIN
from ..json_files import is_integer
from .tensor import NUMPY_TYPES, Span, Tensor, way_out

CONVERT = "convert the checkpoint to safetensors, or use one that has `model.safetensors`"

STORAGE_TYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
"""Classes of torch -> the type of the elements, named as in safetensors files."""

MAX_PICKLE_BYTES = 8_000_000
"""Of the pickle that describes the tensors, without their values: it has about 250 for each of them."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


def read_pickle(path: Path, data: mmap.mmap) -> list[Tensor]:
    """The tensors of the state dict in `path`, mapped as `data`, in its order.

    Raises `CheckpointError` for a file that is cut off, breaks the format or wants more than tensors (the message names
    what), and `UnsupportedError` for layouts that can't be read.
    """
    state, extents = (_read_zip if data[:4] == b"PK\x03\x04" else _read_legacy)(path, data)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state dict, but {_kind(state)}", hint=CONVERT)
    tensors = []
    for name, value in dict.items(state):  # a pickle can hide the method of an OrderedDict behind an attribute
        if not isinstance(name, str) or not isinstance(value, _Strided):
            raise CheckpointError(f"{path}: `{name}` is no tensor, but {_kind(value)}", hint=CONVERT)
        tensors.append(_tensor(path, data, name, value, extents))
    return tensors


# What the unpickler makes. Named tuples because a pickle can neither write to their fields nor find a `__setstate__`
# on them.


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    """A storage the pickle refers to: elements of dtype."""

    dtype: str
    key: str
    elements: int


class _Strided(NamedTuple):
    """A view on a storage; offset and stride count elements. Not checked yet: see `_tensor`."""

    storage: _Storage
    offset: Any
    shape: Any
    stride: Any


class _RebuildTensor:
    """torch._utils._rebuild_tensor_v2. Objects with empty slots, not functions: a pickle can write to functions."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_gradients: Any) -> _Strided:
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError(f"a tensor on {_kind(storage)}")
        return _Strided(storage, offset, shape, stride)


class _RebuildParameter:
    """torch._utils._rebuild_parameter."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_gradients: Any) -> _Strided:
        if not isinstance(tensor, _Strided):
            raise pickle.UnpicklingError(f"a parameter on {_kind(tensor)}")
        return tensor


class _Unpickler(pickle._Unpickler):
    """An unpickler for state dicts: every global that is not listed here stops it.

    Not the one in C: that makes room for as many objects as an operation of five bytes may claim to come.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        match (module, name):
            case ("collections", "OrderedDict"):
                return collections.OrderedDict
            case ("torch._utils", "_rebuild_tensor_v2"):
                return _RebuildTensor()
            case ("torch._utils", "_rebuild_parameter"):
                return _RebuildParameter()
            case ("torch" | "torch.storage", _) if name in STORAGE_TYPES:
                return _StorageType(STORAGE_TYPES[name])
        raise CheckpointError(
            f"{self._path} wants to load `{module}.{name}`, which is no part of a tensor: not loaded", hint=CONVERT
        )

    def persistent_load(self, pid: Any, /) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int(elements), *rest) if rest in ([], [None]):
                storage = _Storage(dtype, key, elements)
                if elements < 0 or self.storages.setdefault(key, storage) != storage:
                    raise pickle.UnpicklingError(f"storage `{key}` is described twice, or of negative size")
                return storage
        raise pickle.UnpicklingError("a reference that is no storage")


def _load(path: Path, unpickler: _Unpickler) -> Any:
    try:
        return unpickler.load()
    except CheckpointError:
        raise
    except Exception as error:  # a broken pickle raises whatever the operation it ends in raises
        problem = f"{path} can't be unpickled: {type(error).__name__}: {error}"
        raise CheckpointError(problem, hint=DOWNLOAD_AGAIN) from error


def _read_zip(path: Path, data: mmap.mmap) -> tuple[Any, dict[str, range]]:
    """The object, and which bytes of the file its storages are."""
    try:
        with zipfile.ZipFile(cast(IO[bytes], data)) as archive:
            files = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut off: {error}", hint=DOWNLOAD_AGAIN) from error
    name = next((name for name in files if name.count("/") == 1 and name.endswith("/data.pkl")), None)
    if name is None:
        raise CheckpointError(f"{path} is a zip archive, but not of torch.save: no data.pkl in it", hint=CONVERT)
    prefix = name.removesuffix("data.pkl")
    order = _zip_content(path, data, files[prefix + "byteorder"]) if prefix + "byteorder" in files else b"little"
    if order != b"little":
        raise UnsupportedError(f"{path}: byte order {order[:60]!r} is not supported", hint=CONVERT)
    unpickler = _Unpickler(BytesIO(_zip_content(path, data, files[name])), path)
    state = _load(path, unpickler)
    extents = {}
    for key in unpickler.storages:
        info = files.get(f"{prefix}data/{key}")
        if info is None:
            raise CheckpointError(f"{path}: storage `{key}` is missing", hint=DOWNLOAD_AGAIN)
        extents[key] = _zip_extent(path, data, info)
    return state, extents


def _zip_content(path: Path, data: mmap.mmap, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a small file of the archive."""
    extent = _zip_extent(path, data, info)
    if len(extent) > MAX_PICKLE_BYTES:
        problem = f"{path}: `{info.filename}` is too large: more than {MAX_PICKLE_BYTES} bytes"
        raise CheckpointError(problem, hint=CONVERT)
    content = data[extent.start : extent.stop]
    if zlib.crc32(content) != info.CRC:
        raise CheckpointError(f"{path}: `{info.filename}` is damaged", hint=DOWNLOAD_AGAIN)
    return content


def _zip_extent(path: Path, data: mmap.mmap, info: zipfile.ZipInfo) -> range:
    """Where the bytes of an archive's uncompressed file lie: behind its local header (APPNOTE.TXT, 4.3.7)."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise UnsupportedError(f"{path}: `{info.filename}` is compressed or encrypted", hint=CONVERT)
    header = data[info.header_offset : info.header_offset + 30]
    if info.header_offset < 0 or len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{path}: `{info.filename}` has no header: damaged", hint=DOWNLOAD_AGAIN)
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    begin = info.header_offset + 30 + names
    if begin + info.file_size > len(data):
        raise CheckpointError(f"{path}: `{info.filename}` lies past the end of the file", hint=DOWNLOAD_AGAIN)
    return range(begin, begin + info.file_size)


def _read_legacy(path: Path, data: mmap.mmap) -> tuple[Any, dict[str, range]]:
    """Like `_read_zip`."""
    file = BytesIO(data[:MAX_PICKLE_BYTES])
    if data[:1] != b"\x80" or _load(path, _Unpickler(file, path)) != LEGACY_MAGIC:
        raise CheckpointError(f"{path} is no file of torch.save, or damaged", hint=way_out(data))
    if _load(path, _Unpickler(file, path)) != LEGACY_PROTOCOL:
        raise UnsupportedError(f"{path} has an unknown version of the format of torch.save", hint=CONVERT)
    system = _load(path, _Unpickler(file, path))
    if type(system) is not dict or system.get("little_endian") is not True:
        raise UnsupportedError(f"{path} was not written on a little-endian system", hint=CONVERT)
    unpickler = _Unpickler(file, path)
    state = _load(path, unpickler)
    keys = _load(path, _Unpickler(file, path))
    if type(keys) is not list or not all(isinstance(key, str) for key in keys) or set(keys) != set(unpickler.storages):
        raise CheckpointError(f"{path}: the list of storages does not fit the tensors", hint=DOWNLOAD_AGAIN)
    extents = {}
    begin = file.tell()
    for key in keys:
        storage = unpickler.storages[key]
        begin += 8
        end = begin + storage.elements * NUMPY_TYPES[storage.dtype].itemsize
        if end > len(data):
            raise CheckpointError(f"{path} is cut off: storage `{key}` lies past its end", hint=DOWNLOAD_AGAIN)
        if int.from_bytes(data[begin - 8 : begin], "little") != storage.elements:
            raise CheckpointError(f"{path}: storage `{key}` has another size than its tensors say", hint=DOWNLOAD_AGAIN)
        extents[key] = range(begin, end)
        begin = end
    return state, extents


def _tensor(path: Path, data: mmap.mmap, name: str, view: _Strided, extents: dict[str, range]) -> Tensor:
    """The tensor of `view`, once it is sure that it lies inside its storage, and the storage inside its extent."""
    dtype, key, elements = view.storage
    numpy_type = NUMPY_TYPES[dtype]
    extent = extents[key]
    if not (_are_sizes(view.shape) and _are_sizes(view.stride) and is_integer(view.offset) and view.offset >= 0):
        raise CheckpointError(f"{path}: tensor `{name}` has no valid shape, stride or offset", hint=DOWNLOAD_AGAIN)
    if len(view.shape) != len(view.stride):
        raise CheckpointError(
            f"{path}: tensor `{name}` has shape {view.shape}, but stride {view.stride}", hint=DOWNLOAD_AGAIN
        )
    last = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    stop = view.offset if 0 in view.shape else last + 1
    if stop > elements or elements * numpy_type.itemsize > len(extent):
        problem = f"{path}: tensor `{name}` of shape {view.shape} reaches outside of its storage"
        raise CheckpointError(problem, hint=DOWNLOAD_AGAIN)
    begin = extent.start + view.offset * numpy_type.itemsize
    strides = tuple(step * numpy_type.itemsize for step in view.stride)
    return Span(begin, view.shape, strides).tensor(path, name, dtype, data)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and all(is_integer(value) and value >= 0 for value in values)


def _kind(value: Any) -> str:
    names: dict[type, str] = {_Strided: "a tensor", _Storage: "a storage", dict: "a dictionary"}
    return names.get(type(value), type(value).__name__)
