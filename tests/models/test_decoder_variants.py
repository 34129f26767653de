"""Decoders of many configurations against what Transformers gave for them (`scripts/record_decoders.py`)."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from oracle.drawn import DrawnTensors, token_ids
from oracle.numpy_ops import NumpyOps
from oracle.parameters import packed
from text_embeddings_inference.models import architectures
from text_embeddings_inference.models.architecture import Architecture
from text_embeddings_inference.nn.parameters import bind, check_all_used
from text_embeddings_inference.ops.spec import Inputs, Value

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "decoders.json").read_text())
VARIANTS: dict[str, dict[str, Any]] = {name: variant for name, variant in RECORDED.items() if name != "about"}
CASES = [(name, number) for name, variant in VARIANTS.items() for number in range(len(variant["configs"]))]
SHOWN = [0, 20, 39]
"""The tokens of 40 whose hidden states are recorded: beyond every window, and beyond the trained length of some."""


@pytest.mark.parametrize(("name", "number"), CASES)
def test_outputs_are_those_of_transformers(name: str, number: int) -> None:
    variant = VARIANTS[name]
    config: dict[str, Any] = variant["configs"][number]
    module = import_module(f"text_embeddings_inference.models.{architectures()[variant['model_type']]}")
    architecture: Architecture[Any, Any] = module.ARCHITECTURE
    args, ops, layout = msgspec.convert(config, architecture.args), NumpyOps(), packed(40)
    tensors = DrawnTensors(variant["shapes"], config["num_hidden_layers"])
    p, heads = bind(tensors, architecture.tensors, architecture.heads, architecture.prefixes, ops)
    model = architecture.model(args, p)
    check_all_used(p)
    ids = token_ids(40)
    x = model(ops, Inputs(Value(ids), Value(np.zeros_like(ids)), layout))
    if variant["labels"]:
        assert architecture.classifier is not None
        result = architecture.classifier(args, variant["labels"], heads)(ops, x, layout).raw[0]
    else:
        result = x.raw[SHOWN].flatten()
    assert np.abs(result - np.array(variant["output"])).max() < 1e-4
