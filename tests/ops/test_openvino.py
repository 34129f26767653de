"""What is particular to the operations on OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest
from one_op import check_close, on_openvino, openvino_kernels, openvino_products, random, tokens_of

from text_embeddings_inference.ops.openvino import Float32OpenVINOOps, OpenVINOOps
from text_embeddings_inference.ops.spec import AttentionSpec, Layout, Ops, Rope, Value


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


def _projected_attention(ops: Ops, layout: Layout, x: Value) -> Value:
    weights = [ops.constant(random(8, 8, seed=seed)) for seed in range(4)]
    queries, keys, values, gate = (ops.linear(x, weight) for weight in weights)
    attended = ops.attention(*(ops.heads(y, 2) for y in (queries, keys, values)), AttentionSpec(), layout)
    return ops.mul(ops.merge(attended), ops.gelu(gate))


def test_in_float32_nothing_is_fused_into_products() -> None:
    """MLAS takes bare products only; what oneDNN makes of the others is slower."""
    x, lengths = random(3, 5, 8), (5, 2, 4)
    fused, bare = (openvino_products(_projected_attention, x, ops=ops) for ops in (OpenVINOOps, Float32OpenVINOOps))
    assert [len(names.split(",")) for names in bare] == [1] * 4
    assert max(len(names.split(",")) for names in fused) > 1  # or the test would see nothing
    one, other = (
        on_openvino(_projected_attention, x, lengths=lengths, ops=ops) for ops in (OpenVINOOps, Float32OpenVINOOps)
    )
    check_close(tokens_of(one, lengths), tokens_of(other, lengths), 1e-5)
