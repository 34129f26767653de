from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from model_files import write_json, write_safetensors

from text_embeddings_inference.checkpoint import open_weights
from text_embeddings_inference.errors import CheckpointError

ONE = {"w": np.array([1, 2], np.float32)}
INDEX = "model.safetensors.index.json"


def test_a_single_file(models: Path) -> None:
    weights = open_weights(models / "bert")
    expected = safetensors.numpy.load_file(models / "bert" / "model.safetensors")
    assert set(weights.names()) == set(weights) == set(expected)
    assert len(weights) == len(expected)
    for name, array in expected.items():
        assert name in weights
        assert weights.dtype(name) == "F32"
        assert weights.shape(name) == array.shape
        np.testing.assert_array_equal(weights.array(name), array)


def test_float16_is_converted(models: Path) -> None:
    weights = open_weights(models / "roberta-classifier")
    expected = safetensors.numpy.load_file(models / "roberta-classifier" / "model.safetensors")
    name = next(name for name in weights if weights.dtype(name) == "F16")
    np.testing.assert_array_equal(weights.array(name), expected[name].astype(np.float32))
    assert weights.array(name).dtype == np.float32


def test_shards(models: Path) -> None:
    folder = models / "xlm-roberta"
    weights = open_weights(folder)
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    assert set(weights) == set(weight_map)
    assert {name: weights.file(name).name for name in weights} == weight_map
    for shard in set(weight_map.values()):
        for name, array in safetensors.numpy.load_file(folder / shard).items():
            np.testing.assert_array_equal(weights.array(name), array)


def test_the_order_of_formats(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even read")
    write_json(tmp_path / INDEX, {"weight_map": {"v": "a.safetensors"}})
    write_safetensors(tmp_path / "a.safetensors", {"v": np.array([3], np.float32)})
    assert open_weights(tmp_path).names() == ("v",)
    write_safetensors(tmp_path / "model.safetensors", ONE)
    assert open_weights(tmp_path).names() == ("w",)


def test_release_keeps_arrays_valid(models: Path) -> None:
    weights = open_weights(models / "bert")
    arrays = {name: weights.array(name) for name in weights}
    before = {name: array.copy() for name, array in arrays.items()}
    weights.release()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def resident_kilobytes(path: Path) -> int:
    """How much of the maps of `path` is in memory, from /proc/self/smaps."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            inside = line.endswith(str(path))
        elif inside and key == "Rss:":
            total += int(values[0])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_release_gives_memory_back(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"w": np.ones(1 << 20, np.float32)})
    weights = open_weights(tmp_path)
    array = weights.array("w")
    assert array.sum() == 1 << 20
    assert resident_kilobytes(tmp_path / "model.safetensors") >= 4096
    weights.release()
    assert resident_kilobytes(tmp_path / "model.safetensors") < 100


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_weights(tmp_path)
    for name in ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json"):
        assert f"`{name}`" in str(caught.value)


@pytest.mark.parametrize(
    ("weight_map", "problem"),
    [
        ({}, "`weight_map` .* is missing or empty"),
        (["w"], "`weight_map` .* is missing or empty"),
        ({"w": "../a.safetensors"}, "no file name for `w`"),
        ({"w": "/a.safetensors"}, "no file name for `w`"),
        ({"w": ".."}, "no file name for `w`"),
        ({"w": ""}, "no file name for `w`"),
        ({"w": 1}, "no file name for `w`: 1"),
        ({"w": "b.safetensors"}, "`b.safetensors` not found in"),
        ({"w": "a.safetensors", "v": "a.safetensors"}, "`v` is not in .*a.safetensors"),
    ],
)
def test_broken_indexes(tmp_path: Path, weight_map: Any, problem: str) -> None:
    write_safetensors(tmp_path / "a.safetensors", ONE)
    write_json(tmp_path / INDEX, {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match=problem):
        open_weights(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", ONE)
    write_safetensors(tmp_path / "b.safetensors", ONE | {"v": np.array([3], np.float32)})
    write_json(tmp_path / INDEX, {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}})
    with pytest.raises(CheckpointError, match=r"`w` is in .*a.safetensors and in .*b.safetensors"):
        open_weights(tmp_path)


def test_an_unknown_tensor(models: Path) -> None:
    with pytest.raises(CheckpointError, match="no tensor `nothing`"):
        open_weights(models / "bert").array("nothing")
