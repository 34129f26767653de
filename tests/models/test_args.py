"""What is assumed of keys that config.json leaves out: the defaults of Transformers' configuration classes."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec
import pytest

from text_embeddings_inference.models import REMOTE_CODE, SPELLINGS, architectures

BERT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "position_embedding_type": "absolute"}
ROPE = dict.fromkeys(
    [
        "original_max_position_embeddings",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "partial_rotary_factor",
    ]
)
DECODER: dict[str, Any] = ROPE | {
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "is_causal": True,
    "use_bidirectional_attention": None,
}
LLAMA = DECODER | {"attention_bias": False, "mlp_bias": False}
ALWAYS_SEES_AHEAD = {"is_causal": False, "use_bidirectional_attention": True}
QWEN2 = DECODER | {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}
QWEN3 = QWEN2 | {"head_dim": 128, "attention_bias": False, "num_labels": None}
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
    "deberta_v2": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "type_vocab_size": 0,
        "embedding_size": None,
        "attention_head_size": None,
        "position_biased_input": True,
        "relative_attention": False,
        "max_relative_positions": -1,
        "position_buckets": -1,
        "norm_rel_ebd": "none",
        "share_att_key": False,
        "pos_att_type": None,
        "conv_kernel_size": 0,
        "conv_groups": 1,
        "conv_act": "tanh",
        "pooler_hidden_size": None,
        "pooler_hidden_act": "gelu",
    },
    "distilbert": {"activation": "gelu"},
    "t5": {
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    },
    "llama": LLAMA,
    "llama_bidirec": LLAMA | ALWAYS_SEES_AHEAD | {"pooling": "avg", "temperature": 1.0},
    "mistral": DECODER | {"sliding_window": 4096},
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "pplx_qwen3": QWEN3 | ALWAYS_SEES_AHEAD,
    "eurobert": LLAMA | {"is_causal": False, "rms_norm_eps": 1e-5, "classifier_pooling": "late"},
    "gemma3_text": {key: value for key, value in DECODER.items() if key != "hidden_act"}
    | {
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": 256,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "layer_types": None,
        "sliding_window_pattern": 6,
        "_sliding_window_pattern": None,
        "rope_local_base_freq": 10_000.0,
        "attn_logit_softcapping": None,
    },
    "gte": ROPE
    | {
        "hidden_act": "gelu",
        "type_vocab_size": 1,
        "layer_norm_type": "layer_norm",
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "rope",
        "pack_qkv": True,
        "logn_attention_scale": False,
    },
    "jina_embeddings_v3": ROPE | {"hidden_act": "gelu", "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "modernbert": ROPE
    | {
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "layer_types": None,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "classifier_pooling": "cls",
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "decoder_bias": True,
    },
    "nomic_bert": ROPE | {"head_dim": None, "hidden_act": "silu", "type_vocab_size": 2, "layer_norm_eps": 1e-12},
    "nomic_bert_remote": {
        "type_vocab_size": 2,
        "rotary_scaling_factor": None,
        "max_trained_positions": 2048,
        "num_experts": 0,
        "moe_every_n_layers": 0,
        "moe_top_k": 1,
        "prenorm": False,
        "causal": False,
        "use_rms_norm": False,
        "parallel_block": False,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "moe_normalize_expert_weights": False,
        "expert_choice_router": False,
        "num_shared_experts": 0,
    },
    "jina_bert": {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "is_decoder": False},
    "jina_bert_code": {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "is_decoder": False},
}


def module(architecture: str) -> ModuleType:
    return import_module(f"text_embeddings_inference.models.{architecture}")


def test_every_architecture_is_checked() -> None:
    assert DEFAULTS.keys() == {*architectures().values(), *REMOTE_CODE.values(), *SPELLINGS.values()}


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_defaults(architecture: str) -> None:
    fields = msgspec.structs.fields(module(architecture).ARCHITECTURE.args)
    assert {field.encode_name: field.default for field in fields if not field.required} == DEFAULTS[architecture]


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_sizes_have_no_defaults(architecture: str) -> None:
    """A config.json without them is damaged: Transformers' sizes would be those of another model."""
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        msgspec.convert({}, module(architecture).ARCHITECTURE.args)
