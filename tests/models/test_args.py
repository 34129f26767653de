"""What is assumed of keys that config.json leaves out: the defaults of Transformers' configuration classes."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec
import pytest

from text_embeddings_inference.models import ARCHITECTURES, REMOTE_CODE

BERT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "position_embedding_type": "absolute"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": BERT | {"is_decoder": False},
    "roberta": BERT | {"is_decoder": False, "pad_token_id": 1},
    "electra": BERT | {"is_decoder": False, "embedding_size": 128},
    "albert": BERT
    | {
        "is_decoder": False,
        "hidden_act": "gelu_new",
        "embedding_size": 128,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    },
    "mpnet": {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "relative_attention_num_buckets": 32},
    "distilbert": {"activation": "gelu"},
    "t5": {
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    },
    "jina_bert": {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "is_decoder": False},
    "jina_bert_code": {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "is_decoder": False},
}


def module(architecture: str) -> ModuleType:
    return import_module(f"text_embeddings_inference.models.{architecture}")


def test_every_architecture_is_checked() -> None:
    assert DEFAULTS.keys() == {*ARCHITECTURES.values(), *REMOTE_CODE.values()}


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_defaults(architecture: str) -> None:
    fields = msgspec.structs.fields(module(architecture).Args)
    assert {field.encode_name: field.default for field in fields if not field.required} == DEFAULTS[architecture]


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_sizes_have_no_defaults(architecture: str) -> None:
    """A config.json without them is damaged: Transformers' sizes would be those of another model."""
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        msgspec.convert({}, module(architecture).Args)
