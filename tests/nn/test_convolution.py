from __future__ import annotations

import numpy as np
import pytest

from oracle.parameters import OPS, packed, parameters, values
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.nn.layers import Conv1d
from text_embeddings_inference.ops.spec import Value


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_conv1d(taps: int, groups: int) -> None:
    """Token by token and tap by tap: zeros beyond the ends of a sequence, each output sees its group of channels."""
    p, weights = parameters(conv__weight=(6, 4 // groups, taps), conv__bias=(6,))
    weight, bias = weights["conv.weight"], weights["conv.bias"]
    x, expected = values(7, 4), np.tile(bias, (7, 1))
    for first, end in ((0, 5), (5, 7)):
        for token in range(first, end):
            for out in range(6):
                own = slice(out * groups // 6 * (4 // groups), (out * groups // 6 + 1) * (4 // groups))
                for tap in range(taps):
                    source = token + tap - taps // 2
                    if first <= source < end:
                        expected[token, out] += weight[out, :, tap] @ x[source, own]
    actual = Conv1d(p / "conv", 4, 6, taps, groups=groups)(OPS, Value(x), packed(5, 2))
    assert np.allclose(actual.raw, expected, atol=1e-12)


def test_conv1d_groups_have_to_divide_the_channels() -> None:
    p, _ = parameters(conv__weight=(6, 1, 3), conv__bias=(6,))
    with pytest.raises(UnsupportedError, match="3 groups"):
        Conv1d(p / "conv", 4, 6, 3, groups=3)
