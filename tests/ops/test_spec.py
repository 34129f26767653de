"""The rules of the waist: values are opaque, and every engine has every operation, called the same way."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oracle.numpy_ops import NumpyOps
from text_embeddings_inference.ops.openvino import OpenVINOOps
from text_embeddings_inference.ops.spec import Ops, Value

OPERATIONS = [name for name, _ in inspect.getmembers(Ops, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize(
    "use",
    [bool, iter, list, len, lambda value: value[0], lambda value: 1 in value, operator.not_],
    ids=["bool", "iter", "list", "len", "getitem", "in", "not"],
)
@pytest.mark.parametrize("ops", [NumpyOps(), OpenVINOOps(8)], ids=["numpy", "openvino"])
def test_a_value_can_only_be_handed_to_operations(ops: Ops, use: Callable[[Value], Any]) -> None:
    value = ops.constant(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="only be handed to operations"):
        use(value)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("engine", [NumpyOps, OpenVINOOps])
def test_operation_has_the_signature_of_the_spec(engine: type[Ops], name: str) -> None:
    assert inspect.signature(getattr(engine, name)) == inspect.signature(getattr(Ops, name))


@pytest.mark.parametrize("engine", [NumpyOps, OpenVINOOps])
def test_no_engine_has_operations_of_its_own(engine: type[Ops]) -> None:
    """A model that used one would run on that engine only."""
    assert {name for name in dir(engine) if not name.startswith("_")} == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_what_it_means(name: str) -> None:
    assert inspect.getdoc(getattr(Ops, name))
