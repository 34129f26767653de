"""Numbers of config.json that no model can have: refused by key and value, on every architecture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from oracle.expected import FIXTURES, MODELS
from text_embeddings_inference.checkpoint import Checkpoint, open_checkpoint
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.models.build import facts_of, find_model_file, read_args
from text_embeddings_inference.models.numbers import takes_floats

COUNTS: tuple[Any, ...] = (-2, 2**40, 10**30, True, "x", 1.5, math.nan)
MEASURES: tuple[Any, ...] = (0, -1.0, math.nan, math.inf, -math.inf, True, "x", 10**400)
ONE_EACH = {json.loads((MODELS / name / "config.json").read_text())["model_type"]: name for name in FIXTURES}


def wrong_configs(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    """Every number that the architecture reads, with each of the values that it can't have."""
    for field in msgspec.structs.fields(find_model_file(checkpoint).architecture.args):
        value = checkpoint.config.get(field.encode_name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            for wrong in MEASURES if takes_floats(field.type) else COUNTS:
                yield field.encode_name, wrong


@pytest.mark.parametrize("name", ONE_EACH.values(), ids=ONE_EACH)
def test_every_number_is_checked(name: str) -> None:
    checkpoint = open_checkpoint(MODELS / name, facts_of)
    cases = list(wrong_configs(checkpoint))
    assert cases
    for key, wrong in cases:
        changed = replace(checkpoint, config=checkpoint.config | {key: wrong})
        with pytest.raises(UnsupportedError) as caught:
            read_args(changed, find_model_file(changed).architecture)
        assert f"`{key}` is {json.dumps(wrong)[:60]}" in str(caught.value)


@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers", "hidden_size", "type_vocab_size"])
def test_zero(key: str) -> None:
    checkpoint = open_checkpoint(MODELS / "bert", facts_of)
    changed = replace(checkpoint, config=checkpoint.config | {key: 0})
    if key == "type_vocab_size":  # a model without types, as far as config.json goes
        assert read_args(changed, find_model_file(changed).architecture).type_vocab_size == 0
        return
    with pytest.raises(UnsupportedError, match=f"`{key}` is 0, should be between 1 and"):
        read_args(changed, find_model_file(changed).architecture)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_numbers_inside_of_objects(wrong: float) -> None:
    checkpoint = open_checkpoint(MODELS / "llama", facts_of)
    scaling = {"rope_type": "linear", "factor": wrong}
    changed = replace(checkpoint, config=checkpoint.config | {"rope_scaling": scaling})
    with pytest.raises(UnsupportedError, match=r"`rope_scaling\.factor` is (NaN|Infinity), should be finite"):
        read_args(changed, find_model_file(changed).architecture)
