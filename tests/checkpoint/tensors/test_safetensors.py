from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from model_files import write_raw_safetensors
from numpy.typing import NDArray

from text_embeddings_inference.checkpoint.tensors.safetensors import read_safetensors
from text_embeddings_inference.checkpoint.tensors.tensor import Tensor, map_file
from text_embeddings_inference.errors import CheckpointError, StartError, UnsupportedError
from text_embeddings_inference.types import BFLOAT16


def read(path: Path) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in read_safetensors(path, map_file(path))}


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_agrees_with_the_reference_reader(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    written: dict[str, NDArray[Any]] = {
        "f32": generator.normal(size=(3, 5)).astype(np.float32),
        "f16": generator.normal(size=7).astype(np.float16),
        "f64": generator.normal(size=(2, 1, 2)),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "flag": np.array([True, False]),
    } | {f"int{bits}": np.arange(-2, 4).astype(f"i{bits // 8}") for bits in (8, 16, 32, 64)}
    written |= {f"uint{bits}": np.arange(6).astype(f"u{bits // 8}") for bits in (8, 16, 32, 64)}
    safetensors.numpy.save_file(written, tmp_path / "x.safetensors", {"format": "pt"})
    tensors = read(tmp_path / "x.safetensors")
    assert set(tensors) == set(written)
    for name, expected in written.items():
        array = tensors[name].array()
        assert tensors[name].shape == expected.shape
        assert array.dtype == (np.float32 if expected.dtype.kind == "f" else expected.dtype), name
        np.testing.assert_array_equal(array, expected.astype(array.dtype))


def test_float32_is_a_writable_view_on_the_file(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * (-len(header) % 8)
    write_raw_safetensors(tmp_path / "x.safetensors", header, np.array([1, 2], np.float32).tobytes())
    before = (tmp_path / "x.safetensors").read_bytes()
    tensor = read(tmp_path / "x.safetensors")["w"]
    array = tensor.array()
    assert array is tensor.stored
    array[0] = 5
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_unaligned_tensors_are_copied(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * (-len(header) % 4 + 1)
    write_raw_safetensors(tmp_path / "x.safetensors", header, np.array([1, 2], np.float32).tobytes())
    array = read(tmp_path / "x.safetensors")["w"].array()
    assert array.flags.aligned
    np.testing.assert_array_equal(array, [1, 2])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC049, 0x7F80, 0x0001], np.uint16)  # 1, -3.140625, infinity, the smallest subnormal
    write_raw_safetensors(tmp_path / "x.safetensors", {"w": entry("BF16", [4])}, bits.tobytes())
    tensor = read(tmp_path / "x.safetensors")["w"]
    assert tensor.stored.dtype == BFLOAT16
    np.testing.assert_array_equal(tensor.array(), np.array([1, -3.140625, np.inf, 2.0**-133], np.float32))


def test_bfloat16_scalar(tmp_path: Path) -> None:
    write_raw_safetensors(tmp_path / "x.safetensors", {"w": entry("BF16", [], [0, 2])}, b"\x80\x3f")
    array = read(tmp_path / "x.safetensors")["w"].array()
    assert (array.shape, float(array)) == ((), 1.0)


@pytest.mark.parametrize(
    ("header", "body", "problem"),
    [
        ({"w": entry()}, b"1234", "`w` lies past the end of the file: 4 bytes are missing"),
        ({"w": entry()}, b"123456789", "1 bytes after the last tensor"),
        ({"w": entry(shape=[3])}, b"12345678", "`w` of type F32 and shape [3] needs 12 bytes, has 8"),
        ({"w": entry(shape=[-2])}, b"12345678", "`w` has no valid shape: [-2]"),
        ({"w": entry(shape=[True])}, b"12345678", "`w` has no valid shape: [true]"),
        ({"w": entry(shape="2")}, b"12345678", '`w` has no valid shape: "2"'),
        ({"w": entry(offsets=[8, 0])}, b"12345678", "`w` has no valid offsets: [8, 0]"),
        ({"w": entry(offsets=[0, 8, 16])}, b"12345678", "`w` has no valid offsets: [0, 8, 16]"),
        ({"w": entry(shape=[0, 2**70], offsets=[0, 0])}, b"", "`w` has an impossible shape"),
        ({"w": {"dtype": "F32"}}, b"", "`w` is not described by dtype, shape and data_offsets"),
        ({"w": None}, b"", "`w` is not described by dtype, shape and data_offsets: null"),
        ({"v": entry(), "w": entry(offsets=[4, 12])}, b"123456789012", "`w` overlaps the tensor before it"),
        ({"v": entry(), "w": entry(offsets=[12, 20])}, b"x" * 20, "`w` leaves a gap before it"),
        (b'{"w": 1, "w": 2}', b"", "the header is no JSON: a key is there twice"),
        (b"{", b"", "the header is no JSON"),
        (b"\xff\xfe", b"", "the header is no JSON"),
        (b"[" * 100_000, b"", "the header is no JSON"),
        (b"[1]", b"", "the header is no object: [1]"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, header: Any, body: bytes, problem: str) -> None:
    path = tmp_path / "x.safetensors"
    write_raw_safetensors(path, header, body)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert "hint: download the checkpoint again" in str(caught.value)


def test_unsupported_types_are_named(tmp_path: Path) -> None:
    write_raw_safetensors(tmp_path / "x.safetensors", {"w": entry("F8_E4M3", [8])}, b"12345678")
    with pytest.raises(UnsupportedError, match='tensor `w` is stored as "F8_E4M3"'):
        read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("size", [0, 3, 8, 20])
def test_cut_off_in_the_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    write_raw_safetensors(path, {"w": entry()}, b"12345678")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"is cut off|is empty"):
        read(path)


def test_git_lfs_pointers_are_recognized(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read(path)


def test_damage_anywhere_in_the_header_gives_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_raw_safetensors(path, {"v": entry(), "w": entry(offsets=[8, 16])}, b"1234567812345678")
    good = path.read_bytes()
    for position in range(len(good) - 16):
        for byte in (0, 0x20, 0x39, 0x5D, 0xFF):
            path.write_bytes(good[:position] + bytes([byte]) + good[position + 1 :])
            try:
                tensors = read(path)
            except StartError:
                continue
            for tensor in tensors.values():  # what is accepted lies inside the file
                tensor.array().sum()
