from __future__ import annotations

from typing import Any

import msgspec
import pytest
from numpy.typing import NDArray

from oracle.expected import Fixture
from oracle.numpy_ops import NumpyOps
from text_embeddings_inference.models import albert
from text_embeddings_inference.nn.parameters import bind, check_all_used


class SeveralGroups:
    """The fixture's tensors, its group of layers repeated under the names of `groups` groups."""

    def __init__(self, groups: int) -> None:
        self._weights = Fixture("albert").open().weights
        self._sources = {
            name.replace("groups.0", f"groups.{i}"): name for name in self._weights.names() for i in range(groups)
        }

    def names(self) -> list[str]:
        return list(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(self._sources[name])

    def array(self, name: str) -> NDArray[Any]:
        return self._weights.array(self._sources[name])


@pytest.mark.parametrize(
    ("layers", "groups", "group_of_layer"),
    [(3, 1, [0, 0, 0]), (4, 2, [0, 0, 1, 1]), (3, 3, [0, 1, 2]), (5, 2, [0, 0, 0, 1, 1])],
)
def test_layers_share_the_weights_of_their_group(layers: int, groups: int, group_of_layer: list[int]) -> None:
    """AlbertTransformer: layer i is of group int(i / (layers / groups))."""
    config = Fixture("albert").open().config | {"num_hidden_layers": layers, "num_hidden_groups": groups}
    p, _ = bind(SeveralGroups(groups), albert.TENSORS, albert.HEADS, ("albert.",), NumpyOps())
    model = albert.Model(msgspec.convert(config, albert.Args), p)
    check_all_used(p)
    blocks = list(dict.fromkeys(model.layers))
    assert [blocks.index(layer) for layer in model.layers] == group_of_layer
