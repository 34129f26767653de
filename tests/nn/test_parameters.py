from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle.numpy_ops import NumpyOps
from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.nn.parameters import (
    QKV,
    Parameters,
    Table,
    bind,
    check_all_used,
    split,
)

MODEL: Table = {
    "embeddings.word": "word",
    "embeddings.position_ids": None,
    "layer.{i}.attention.q": "layers.{i}.query",
    "layer.{i}.norm": "layers.{i}.norm",
    "layer.{i}.experts": "layers.{i}.experts",
    "layer.{i}.experts.w1": "layers.{i}.experts.up.weight",
}
HEADS: Table = {"pooler": None, "classifier": "out", "lm_head": ""}


class FakeTensors:
    """Tensors by name; each holds its own number in every place."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        names = [name.replace("__", ".") for name in shapes]
        self._shapes = dict(zip(names, shapes.values(), strict=True))
        self.read: list[str] = []

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def array(self, name: str) -> NDArray[Any]:
        self.read.append(name)
        return np.full(self._shapes[name], self.names().index(name), np.float32)


def bind_fake(prefixes: tuple[str, ...] = ("bert.",), **shapes: tuple[int, ...]) -> tuple[Parameters, Parameters]:
    return bind(FakeTensors(**shapes), MODEL, HEADS, prefixes, NumpyOps())


def test_parameters_are_found_by_the_table() -> None:
    model, heads = bind_fake(
        embeddings__word__weight=(5, 2),
        layer__0__attention__q__weight=(2, 2),
        layer__11__attention__q__bias=(2,),
        classifier__weight=(3, 2),
        lm_head__bias=(5,),
    )
    assert model.tensor("word.weight", (5, 2)).raw[0, 0] == 0
    assert (model / "layers" / 0 / "query").tensor("weight", (2, 2)).raw[0, 0] == 1
    assert (model / "layers" / 11 / "query").tensor("bias", (2,)).raw[0] == 2
    assert (heads / "out").tensor("weight", (3, 2)).raw[0, 0] == 3
    assert heads.tensor("bias", (5,)).raw[0] == 4
    check_all_used(model)


def test_names_may_begin_with_a_prefix() -> None:
    model, heads = bind_fake(bert__embeddings__word__weight=(5, 2), bert__classifier__bias=(3,))
    assert "word.weight" in model
    assert "out.bias" in heads


def test_only_one_prefix_is_taken_off() -> None:
    with pytest.raises(CheckpointError, match=r"unexpected tensor `bert\.bert\.embeddings\.word\.weight`"):
        bind_fake(bert__bert__embeddings__word__weight=(5, 2))


def test_old_names_of_norms() -> None:
    model, _ = bind_fake(layer__0__norm__gamma=(2,), layer__0__norm__beta=(2,))
    norm = model / "layers" / 0 / "norm"
    assert norm.tensor("weight", (2,)).raw[0] == 0
    assert norm.tensor("bias", (2,)).raw[0] == 1


def test_a_row_for_one_tensor() -> None:
    """Beside a row for the module that it lies in."""
    model, _ = bind_fake(layer__0__experts__w1=(4, 2), layer__0__experts__bias=(2,), layer__1__experts__weight=(3,))
    experts = model / "layers" / 0 / "experts"
    assert experts.tensor("up.weight", (4, 2)).raw[0, 0] == 0
    assert experts.tensor("bias", (2,)).raw[0] == 1
    assert (model / "layers" / 1 / "experts").tensor("weight", (3,)).raw[0] == 2


def test_contains_looks_below_the_path() -> None:
    model, _ = bind_fake(layer__0__attention__q__weight=(2, 2))
    assert "layers.0.query.weight" in model
    assert "weight" in model / "layers" / 0 / "query"
    assert "weight" not in model / "layers" / 1 / "query"
    assert "bias" not in model / "layers" / 0 / "query"


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word.scale",
        "embeddings.word",
        "layer.x.norm.weight",
        "layer.0.norm.weight.more",
        "layer.0.experts.w1.weight",
        "layer.0.experts.w1.bias",
        "layer.0.experts.w2",
        "bert.other.weight",
        "bert.logit_scale",
        "embedings.word.weight",
        "poler.weight",
        "clasifier.weight",
        "linear.weight",
    ],
)
def test_unexpected_tensor(name: str) -> None:
    with pytest.raises(CheckpointError, match="unexpected tensor") as caught:
        bind_fake(**{name.replace(".", "__"): (2,)})
    assert f"`{name}`" in str(caught.value)
    assert caught.value.hint


def test_surplus_is_left_out_and_named() -> None:
    names = ["logit_scale", "loss.weight", "decoder.block.0.q.weight", "decoder.block.0.k.weight", "mlm.weight"]
    tensors = FakeTensors(**{name.replace(".", "__"): (2,) for name in ("embeddings.word.weight", *names)})
    model, _ = bind(tensors, MODEL, HEADS, ("bert.",), NumpyOps())
    model.tensor("word.weight", (2,))
    check_all_used(model)
    assert tensors.read == ["embeddings.word.weight"]
    assert model.surplus == "`decoder` (2 tensors), `logit_scale`, `loss`, `mlm`"


def test_what_is_said_of_surplus_is_short() -> None:
    model, _ = bind_fake(**{f"{number}" * 200: (1,) for number in range(9)})
    assert model.surplus.endswith(f"`{'4' * 40}` and 4 more parts")


@pytest.mark.parametrize("name", ["position_ids", "other.inv_freq", "bert.layer.0.attention.masked_bias"])
def test_buffers_are_left_out_without_a_word(name: str) -> None:
    model, _ = bind_fake(**{name.replace(".", "__"): (2,)})
    assert not model.surplus


def test_known_but_unused_tensors_are_not_read() -> None:
    tensors = FakeTensors(embeddings__position_ids=(1, 5), pooler__weight=(2, 2), embeddings__word__weight=(5, 2))
    model, _ = bind(tensors, MODEL, HEADS, (), NumpyOps())
    model.tensor("word.weight", (5, 2))
    check_all_used(model)
    assert tensors.read == ["embeddings.word.weight"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("word.weight", "embeddings.word.weight"),
        ("layers.3.query.bias", "layer.3.attention.q.bias"),
        ("layers.12.norm.weight", "layer.12.norm.weight"),
        ("layers.3.experts.bias", "layer.3.experts.bias"),
        ("layers.3.experts.up.weight", "layer.3.experts.w1"),
    ],
)
def test_missing_tensor_is_named_as_in_the_checkpoint(path: str, name: str) -> None:
    model, _ = bind_fake()
    with pytest.raises(CheckpointError) as caught:
        model.tensor(path, (4, 2))
    assert f"no tensor `{name}`, shape [4, 2]" in str(caught.value)
    assert caught.value.hint


def test_missing_tensor_of_a_head() -> None:
    _, heads = bind_fake()
    with pytest.raises(CheckpointError, match=r"no tensor `lm_head\.bias`"):
        heads.tensor("bias", (5,))
    with pytest.raises(CheckpointError, match=r"no tensor `classifier\.weight`"):
        (heads / "out").tensor("weight", (3, 2))


@pytest.mark.parametrize("shape", [(2, 5), (5,), (5, 2, 1)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    model, _ = bind_fake(bert__embeddings__word__weight=(5, 2))
    with pytest.raises(CheckpointError, match=r"`bert\.embeddings\.word\.weight` has shape \[5, 2\]") as caught:
        model.tensor("word.weight", shape)
    assert str(list(shape)) in str(caught.value)


def test_one_parameter_under_two_names() -> None:
    with pytest.raises(CheckpointError, match=r"`layer\.0\.norm\.weight` and `bert\.layer\.0\.norm\.gamma`"):
        bind_fake(layer__0__norm__weight=(2,), bert__layer__0__norm__gamma=(2,))


def test_tensors_that_nothing_was_made_of() -> None:
    model, _ = bind_fake(
        embeddings__word__weight=(5, 2), layer__0__norm__weight=(2,), layer__1__norm__weight=(2,), pooler__weight=(2, 2)
    )
    (model / "layers" / 0 / "norm").tensor("weight", (2,))
    assert model.unused() == ["embeddings.word.weight", "layer.1.norm.weight"]
    with pytest.raises(CheckpointError, match=r"unexpected tensor `embeddings\.word\.weight` and 1 more"):
        check_all_used(model)
    model.array("word.weight", (5, 2))
    with pytest.raises(CheckpointError, match=r"unexpected tensor `layer\.1\.norm\.weight`:"):
        check_all_used(model)


def test_a_constant_made_at_load() -> None:
    model, _ = bind_fake()
    assert np.array_equal(model.constant(np.arange(3, dtype=np.float32)).raw, [0, 1, 2])


PACKED: Table = {
    "layer.{i}.Wqkv": split("layers.{i}", *QKV),
    "layer.{i}.query": "layers.{i}.query",
    "layer.{i}.gate_up": split("layers.{i}", "gate", "up"),
}


class StoredTensors(FakeTensors):
    """Tensors whose rows are numbered."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__(**shapes)
        rows = {name: np.arange(shape[0], dtype=np.float32) for name, shape in self._shapes.items()}
        self.arrays = {
            name: np.ascontiguousarray(np.broadcast_to(rows[name].reshape(-1, *[1] * (len(shape) - 1)), shape))
            for name, shape in self._shapes.items()
        }

    def array(self, name: str) -> NDArray[Any]:
        self.read.append(name)
        return self.arrays[name]


def test_packed_tensors_are_taken_apart() -> None:
    tensors = StoredTensors(layer__2__Wqkv__weight=(6, 3), layer__2__Wqkv__bias=(6,), layer__2__gate_up__weight=(4, 3))
    model, _ = bind(tensors, PACKED, {}, (), NumpyOps())
    layer = model / "layers" / 2
    for part, rows in {"query": [0, 1], "key": [2, 3], "value": [4, 5], "gate": [0, 1], "up": [2, 3]}.items():
        weight = (layer / part).array("weight", (2, 3))
        assert weight[:, 0].tolist() == rows
        assert np.shares_memory(weight, tensors.arrays[f"layer.2.{'Wqkv' if part in QKV else 'gate_up'}.weight"])
        assert weight.flags.c_contiguous
        if part in QKV:
            assert (layer / part).array("bias", (2,)).tolist() == rows
    check_all_used(model)
    assert sorted(tensors.read) == ["layer.2.Wqkv.bias", "layer.2.Wqkv.weight", "layer.2.gate_up.weight"]


def test_a_part_that_nothing_was_made_of() -> None:
    model, _ = bind(StoredTensors(layer__0__Wqkv__weight=(6, 3)), PACKED, {}, (), NumpyOps())
    for part in ("query", "key"):
        (model / "layers" / 0 / part).array("weight", (2, 3))
    with pytest.raises(CheckpointError, match=r"unexpected tensor `layer\.0\.Wqkv\.weight`: config\.json does not"):
        check_all_used(model)


@pytest.mark.parametrize("shape", [(2, 3), (7, 3), (9, 3), (6, 2), (6,)])
def test_a_packed_tensor_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    model, _ = bind(StoredTensors(layer__0__Wqkv__weight=shape), PACKED, {}, (), NumpyOps())
    problem = rf"`layer\.0\.Wqkv\.weight` has shape {re.escape(str(list(shape)))}, config\.json asks for \[6, 3\]"
    with pytest.raises(CheckpointError, match=problem):
        (model / "layers" / 0 / "key").array("weight", (2, 3))


def test_a_packed_tensor_that_is_missing() -> None:
    model, _ = bind(StoredTensors(), PACKED, {}, (), NumpyOps())
    with pytest.raises(CheckpointError, match=r"no tensor `layer\.0\.Wqkv\.bias`, shape \[6\]"):
        (model / "layers" / 0 / "key").array("bias", (2,))


def test_a_parameter_that_is_packed_and_by_itself() -> None:
    with pytest.raises(CheckpointError, match="are the same parameter under two names"):
        bind(StoredTensors(layer__0__Wqkv__weight=(6, 3), layer__0__query__weight=(2, 3)), PACKED, {}, (), NumpyOps())
