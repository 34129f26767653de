"""Building a network from a checkpoint: what it gives, and with what message it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import edit

from oracle.engine import NumpyEngine
from oracle.expected import MODELS, Fixture
from oracle.numpy_ops import NumpyOps
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, StartError, UnsupportedError
from text_embeddings_inference.models import architectures
from text_embeddings_inference.models.build import Network, build, facts_of
from text_embeddings_inference.types import Batch, Encoding, Output, Pooling


def build_numpy(folder: Path, pooling: Pooling | None = None) -> Network:
    return build(open_checkpoint(folder, facts_of, pooling=pooling), NumpyOps())


def run_numpy(folder: Path, encoding: Encoding, pooling: Pooling | None = None) -> Output:
    engine = NumpyEngine(open_checkpoint(folder, facts_of, pooling=pooling), "padded")
    return engine.run(Batch.pad([encoding]))


def refusal(folder: Path, pooling: Pooling | None = None) -> StartError:
    with pytest.raises(StartError) as caught:
        build_numpy(folder, pooling)
    return caught.value


@pytest.mark.parametrize(
    ("name", "dimensions", "vocabulary"),
    [
        ("bert", 32, 900),
        ("bert-dense", 24, 900),
        ("bert-classifier", 6, 900),
        ("xlm-roberta-reranker", 1, 605),
        ("voyage-nano", 48, 663),
        ("qwen3-reranker", 1, 663),
    ],
)
def test_sizes(name: str, dimensions: int, vocabulary: int) -> None:
    network = build_numpy(MODELS / name)
    assert (network.dimensions, network.vocabulary) == (dimensions, vocabulary)


def test_splade_has_a_dimension_per_token_id() -> None:
    network = build_numpy(MODELS / "bert-splade", Pooling.SPLADE)
    assert (network.dimensions, network.vocabulary) == (900, 900)


QUERY = "layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        pytest.param(
            "bert",
            {"remove": (f"encoder.{QUERY}",)},
            (f"encoder.{QUERY}", "[32, 32]"),
            id="missing tensor",
        ),
        pytest.param(
            "distilbert",
            {"remove": ("transformer.layer.0.ffn.lin2.bias",)},
            ("transformer.layer.0.ffn.lin2.bias", "[32]"),
            id="missing bias",
        ),
        pytest.param(
            "bert", {"remove": ("embeddings.LayerNorm.weight",)}, ("embeddings.LayerNorm",), id="missing norm"
        ),
        pytest.param(
            "bert", {"add": {"encoder.rotary.weight": (2,)}}, ("encoder.rotary.weight",), id="unexpected tensor"
        ),
        pytest.param(
            "bert",
            {"add": {"embeddings.word_embeddings.scale": (2,)}},
            ("embeddings.word_embeddings.scale",),
            id="unexpected tensor of a known module",
        ),
        pytest.param(
            "bert", {"config": {"num_hidden_layers": 1}}, ("encoder.layer.1.", "and 15 more"), id="layer not counted"
        ),
        pytest.param("bert", {"config": {"num_hidden_layers": 3}}, ("encoder.layer.2.",), id="layer not there"),
        pytest.param(
            "bert",
            {"add": {f"encoder.{QUERY}": (32, 16)}},
            (f"encoder.{QUERY}", "[32, 16]", "[32, 32]"),
            id="wrong shape",
        ),
        pytest.param(
            "bert",
            {"config": {"vocab_size": 901}},
            ("word_embeddings", "[900, 32]", "[901, 32]"),
            id="wrong vocabulary",
        ),
        pytest.param(
            "mpnet",
            {"config": {"relative_attention_num_buckets": 16}},
            ("relative_attention_bias", "[32, 4]", "[16, 4]"),
            id="wrong buckets",
        ),
        pytest.param(
            "bert-classifier", {"remove": ("classifier.bias",)}, ("classifier.bias", "[6]"), id="missing head"
        ),
        pytest.param(
            "electra-reranker",
            {"remove": ("classifier.out_proj.weight",)},
            ("classifier.out_proj.weight", "[1, 32]"),
            id="missing head of a reranker",
        ),
        pytest.param(
            "bert",
            {"add": {"bert.embeddings.LayerNorm.gamma": (32,)}},
            ("embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.gamma"),
            id="one parameter twice",
        ),
        pytest.param(
            "voyage-nano", {"config": {"num_labels": 47}}, ("linear.weight", "[48, 32]", "[47, 32]"), id="projection"
        ),
        pytest.param("qwen3-reranker", {"remove": ("score.weight",)}, ("score.weight", "[1, 32]"), id="missing score"),
        pytest.param(
            "llama",
            {"config": {"attention_bias": True}},
            ("layers.0.self_attn.q_proj.bias", "[32]"),
            id="missing bias of attention",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, name: str, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    error = refusal(edit(tmp_path, name, **changes))
    assert type(error) is CheckpointError
    message, _, hint = str(error).partition("\nhint: ")
    assert all(word in message for word in words), message
    assert hint


def test_missing_masked_lm_head(tmp_path: Path) -> None:
    error = refusal(edit(tmp_path, "bert", config={"architectures": ["BertForMaskedLM"]}), Pooling.SPLADE)
    assert type(error) is CheckpointError
    assert "cls.predictions.transform.dense.weight" in str(error)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bert", "position_embedding_type", "relative_key"),
        ("bert", "position_embedding_type", "relative_key_query"),
        ("bert", "hidden_act", "mish"),
        ("bert", "is_decoder", True),
        ("roberta", "is_decoder", True),
        ("albert", "is_decoder", True),
        ("albert", "inner_group_num", 2),
        ("distilbert", "activation", "gelu_10"),
        ("bert", "hidden_size", "32"),
        ("mpnet", "num_attention_heads", None),
        ("gte-new", "layer_norm_type", "rms_norm"),
        ("gte-new", "position_embedding_type", "absolute"),
        ("gte-new", "pack_qkv", False),
        ("gte-new", "logn_attention_scale", True),
        ("modernbert", "layer_types", ["full_attention", "sliding_attention"]),
        ("modernbert", "layer_types", ["full_attention", "linear_attention", "full_attention"]),
        ("modernbert-classifier", "classifier_pooling", "max"),
        ("modernbert-classifier", "classifier_activation", "gelu_10"),
        ("nomic-bert-native", "head_dim", 8),
        ("nomic-bert", "prenorm", True),
        ("nomic-bert", "causal", True),
        ("nomic-bert", "use_rms_norm", True),
        ("nomic-bert", "parallel_block", True),
        ("nomic-bert", "rotary_emb_interleaved", True),
        ("nomic-bert", "rotary_emb_scale_base", 512),
        ("nomic-bert", "rotary_emb_fraction", 0.0),
        ("nomic-bert", "activation_function", "relu"),
        ("nomic-bert", "mlp_fc1_bias", True),
        ("nomic-bert-moe", "activation_function", "swiglu"),
        ("nomic-bert-moe", "moe_normalize_expert_weights", True),
        ("nomic-bert-moe", "expert_choice_router", True),
        ("nomic-bert-moe", "num_shared_experts", 1),
        ("t5-encoder", "feed_forward_proj", "gated-silu"),
        ("jina-bert", "position_embedding_type", "absolute"),
        ("jina-bert", "feed_forward_type", "original"),
        ("jina-bert-code", "is_decoder", True),
        ("llama", "hidden_act", "mish"),
        ("llama", "num_key_value_heads", 3),
        ("llama", "num_attention_heads", 5),
        ("llama", "rope_scaling", {"rope_type": "longrope", "factor": 2}),
        ("llama", "partial_rotary_factor", 0.5),
        ("llama_bidirec", "use_bidirectional_attention", False),
        ("llama_bidirec", "is_causal", True),
        ("mistral", "sliding_window", 0),
        ("qwen2", "layer_types", ["full_attention"]),
        ("qwen2", "layer_types", ["full_attention", "sliding_attention"]),
        ("qwen2", "layer_types", ["full_attention", "chunked_attention"]),
        ("voyage-nano", "rms_norm_eps", "1e-6"),
        ("pplx1", "is_causal", True),
        ("eurobert", "is_causal", True),
        ("eurobert", "classifier_pooling", "max"),
        ("gemma3_text", "attn_logit_softcapping", 50.0),
        ("gemma3_text", "hidden_activation", "gelu_10"),
        ("gemma3_text", "layer_types", ["full_attention"]),
        ("gemma3_text", "sliding_window", None),
        ("gemma3_text", "rope_parameters", {"full_attention": {}, "sliding_attention": None}),
    ],
)
def test_config_values_that_are_not_supported(tmp_path: Path, name: str, key: str, value: Any) -> None:
    error = refusal(edit(tmp_path, name, config={key: value}))
    assert type(error) is UnsupportedError
    assert key in str(error)
    assert not isinstance(value, str) or key in ("hidden_size", "rms_norm_eps") or value in str(error)


def test_heads_that_do_not_divide_the_width(tmp_path: Path) -> None:
    error = refusal(edit(tmp_path, "bert", config={"num_attention_heads": 5}))
    assert type(error) is UnsupportedError
    assert "5 attention heads" in str(error)
    assert "32" in str(error)


def test_unknown_model_type(tmp_path: Path) -> None:
    error = refusal(edit(tmp_path, "bert", config={"model_type": "fnet"}))
    assert type(error) is UnsupportedError
    assert "`model_type` is 'fnet'" in str(error)
    assert error.hint is not None
    assert all(name in error.hint for name in architectures())


@pytest.mark.parametrize("name", ["bert", "bert-classifier", "bert-reranker"])
def test_names_of_old_conversions_and_of_other_classes(tmp_path: Path, name: str) -> None:
    """A prefix before all names, gamma and beta for weight and bias: the outputs are the same."""
    case = Fixture(name).cases[0]
    tensors = {"embeddings": "bert.embeddings", "encoder": "bert.encoder"} if name == "bert" else {}
    norm = "bert.embeddings.LayerNorm."
    folder = edit(tmp_path, name, rename=tensors | {f"{norm}weight": f"{norm}gamma", f"{norm}bias": f"{norm}beta"})
    assert np.abs(run_numpy(folder, case.encoding).pooled[0] - case.output).max() < 1e-4


def test_a_head_of_another_task_is_left_aside(tmp_path: Path) -> None:
    """BERT's pooler and pretraining heads lie beside the weights of many embedding models."""
    heads = {"cls.seq_relationship.weight": (2, 32), "qa_outputs.weight": (2, 32), "cls.predictions.bias": (900,)}
    case = Fixture("bert").cases[0]
    output = run_numpy(edit(tmp_path, "bert", add=heads), case.encoding)
    assert np.abs(output.pooled[0] - case.output).max() < 1e-4


def test_a_classifier_without_a_pooler_classifies_the_first_token(tmp_path: Path) -> None:
    case = Fixture("bert-classifier").cases[0]
    folder = edit(tmp_path, "bert-classifier", remove=("bert.pooler.dense.weight", "bert.pooler.dense.bias"))
    output = run_numpy(folder, case.encoding)
    assert output.pooled.shape == (1, 6)
    assert np.abs(output.pooled[0] - case.output).max() > 1e-2


def test_reranker_without_labels_has_one(tmp_path: Path) -> None:
    folder = edit(tmp_path, "bert-reranker", config={"id2label": {}, "label2id": {}})
    assert open_checkpoint(folder, facts_of).labels == ("LABEL_0",)
    assert build_numpy(folder).dimensions == 1
