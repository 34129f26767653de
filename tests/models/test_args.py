"""What is assumed of keys that config.json leaves out: the defaults of Transformers' configuration classes."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest

from text_embeddings_inference.models import REMOTE_CODE, SPELLINGS, architectures

FILES = sorted({*architectures().values(), *REMOTE_CODE.values(), *SPELLINGS.values()})

ROPE = {"rope_theta", "rope_scaling", "rope_parameters"}
"""Transformers makes one of these of the others; what is assumed of the base stands in tests/nn/test_rotary.py."""

DERIVED = {
    "head_dim": "follows from the width and the number of heads",
    "layer_types": "follows from other keys, layer by layer",
    "num_key_value_heads": "a size: where it is missing and other than the number of heads, no matrix fits",
    "pooler_hidden_size": "follows from the width",
    "sliding_window": "left out by Transformers unless `use_sliding_window` is true",
    "use_bidirectional_attention": "null and false mean the same",
    "_sliding_window_pattern": "a second name of `sliding_window_pattern`",
}
"""Keys whose default is another one, and why this changes nothing."""


def fields(name: str) -> tuple[Any, ...]:
    module = import_module(f"text_embeddings_inference.models.{name}")
    return msgspec.structs.fields(module.ARCHITECTURE.args)


@pytest.mark.skipif(find_spec("transformers") is None, reason="Transformers is not installed")
@pytest.mark.filterwarnings("ignore:::(transformers|torch)")
@pytest.mark.parametrize("model_type", architectures())
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"{model_type} is defined by remote code: Transformers has no class for it")
    theirs: dict[str, Any] = CONFIG_MAPPING[model_type]().to_dict()
    compared = {
        field.encode_name: field.default
        for field in fields(architectures()[model_type])
        if not field.required and field.encode_name in theirs and field.encode_name not in ROPE
    }
    assert compared
    differing = {key: (ours, theirs[key]) for key, ours in compared.items() if ours != theirs[key]}
    assert differing.keys() <= DERIVED.keys(), differing


@pytest.mark.parametrize("name", FILES)
def test_sizes_have_no_defaults(name: str) -> None:
    """A config.json without them is damaged: Transformers' sizes would be those of another model."""
    module = import_module(f"text_embeddings_inference.models.{name}")
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        msgspec.convert({}, module.ARCHITECTURE.args)
