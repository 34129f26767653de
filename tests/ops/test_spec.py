"""The rules of the waist: values are opaque, and every engine has every operation, called the same way."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extras import needs_torch
from oracle.numpy_ops import NumpyOps
from text_embeddings_inference.ops.openvino import OpenVINOOps
from text_embeddings_inference.ops.spec import Ops, Value


def _torch() -> type[Ops]:
    from text_embeddings_inference.ops.torch import TorchOps

    return TorchOps


def _torch_ops() -> Ops:
    import torch

    return _torch()(torch.device("cpu"), torch.float32, 8)


OPERATIONS = [name for name, _ in inspect.getmembers(Ops, inspect.isfunction) if not name.startswith("_")]


on_each = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(lambda: NumpyOps, id="numpy"),
        pytest.param(lambda: OpenVINOOps, id="openvino"),
        pytest.param(_torch, id="torch", marks=needs_torch),
    ],
)


@pytest.mark.parametrize(
    "use",
    [bool, iter, list, len, lambda value: value[0], lambda value: 1 in value, operator.not_],
    ids=["bool", "iter", "list", "len", "getitem", "in", "not"],
)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(NumpyOps, id="numpy"),
        pytest.param(lambda: OpenVINOOps(8), id="openvino"),
        pytest.param(_torch_ops, id="torch", marks=needs_torch),
    ],
)
def test_a_value_can_only_be_handed_to_operations(make: Callable[[], Ops], use: Callable[[Value], Any]) -> None:
    value = make().constant(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="only be handed to operations"):
        use(value)


@pytest.mark.parametrize("name", OPERATIONS)
@on_each
def test_operation_has_the_signature_of_the_spec(engine: Callable[[], type[Ops]], name: str) -> None:
    assert inspect.signature(getattr(engine(), name)) == inspect.signature(getattr(Ops, name))


@on_each
def test_no_engine_has_operations_of_its_own(engine: Callable[[], type[Ops]]) -> None:
    """A model that used one would run on that engine only."""
    assert {name for name in dir(engine()) if not name.startswith("_")} == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_what_it_means(name: str) -> None:
    assert inspect.getdoc(getattr(Ops, name))
