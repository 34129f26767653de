"""What is particular to the operations on OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest
from one_op import on_openvino, openvino_kernels, random

from text_embeddings_inference.ops.openvino import OpenVINOOps
from text_embeddings_inference.ops.spec import Rope


def test_a_constant_shares_the_arrays_memory() -> None:
    array = random(2, 3)
    node = OpenVINOOps(8).constant(array).raw
    assert np.shares_memory(node.data, array)


def test_a_constant_of_an_array_with_strides() -> None:
    array = random(3, 2).T
    assert np.array_equal(OpenVINOOps(8).constant(array).raw.data, array)


def test_building_a_graph_says_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """OpenVINO warns of numbers that it has to convert, on its own standard output."""
    on_openvino(lambda ops, _, x: ops.add(ops.layer_norm(x, x, x, 1e-5), 1), random(3, 5, 8), lengths=(5, 5, 5))
    captured = capfd.readouterr()
    assert captured.out + captured.err + caplog.text == ""


@pytest.mark.parametrize("pairs", [4, 2], ids=["whole head", "half of it"])
def test_a_rotation_is_one_kernel(pairs: int) -> None:
    rope = Rope(np.arange(1.0, pairs + 1))
    kernels = openvino_kernels(lambda ops, layout, x: ops.rope(x, rope, layout), random(3, 5, 2, 8))
    assert kernels.count("RoPE") == 1
    assert "Eltwise" not in kernels
