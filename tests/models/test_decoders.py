"""What decoders make of config.json: who sees whom, which layers have a window, how they rotate.

That the outputs follow is checked by the fixtures; these cases were compared with Transformers 5.23 once.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from edited import edit
from numpy.typing import NDArray

from oracle.engine import NumpyEngine
from oracle.expected import Fixture
from oracle.numpy_ops import NumpyOps
from oracle.parameters import packed, parameters, values
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.models import eurobert, llama_bidirec
from text_embeddings_inference.models.build import build, facts_of
from text_embeddings_inference.models.llama import DecoderArgs
from text_embeddings_inference.ops.spec import AttentionSpec, Value
from text_embeddings_inference.types import Batch

SIZES = {
    "vocab_size": 10,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CAUSAL, BOTH = AttentionSpec(causal=True), AttentionSpec()
FULL, SLIDING = "full_attention", "sliding_attention"


def args(architecture: str, **config: Any) -> Any:
    module = import_module(f"text_embeddings_inference.models.{architecture}")
    return msgspec.convert(SIZES | config, module.Args)


def windows(made: DecoderArgs) -> list[int | None]:
    return [spec.window for spec in made.specs()]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_who_sees_whom(architecture: str) -> None:
    assert args(architecture).specs() == [CAUSAL] * 3
    assert args(architecture, is_causal=False).specs() == [BOTH] * 3
    assert args(architecture, use_bidirectional_attention=True).specs() == [BOTH] * 3
    assert args(architecture, use_bidirectional_attention=False).specs() == [CAUSAL] * 3


@pytest.mark.parametrize("architecture", ["llama_bidirec", "pplx_qwen3", "eurobert"])
def test_those_that_always_see_both_ways(architecture: str) -> None:
    assert args(architecture).specs() == [BOTH] * 3


def test_window_of_mistral() -> None:
    """Of n tokens the last is the token itself; where it sees both ways, it sees n to either side."""
    assert args("mistral", sliding_window=16).specs() == [AttentionSpec(causal=True, window=15)] * 3
    assert args("mistral", sliding_window=16, is_causal=False).specs() == [AttentionSpec(window=16)] * 3
    assert args("mistral", sliding_window=None).specs() == [CAUSAL] * 3
    assert windows(args("mistral")) == [4095] * 3


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_windows_of_qwen(architecture: str) -> None:
    on = {"use_sliding_window": True, "sliding_window": 8}
    assert windows(args(architecture, sliding_window=8)) == [None] * 3
    assert windows(args(architecture, **on)) == [None] * 3  # they begin at layer 28
    assert windows(args(architecture, **on, max_window_layers=1)) == [None, 7, 7]
    assert windows(args(architecture, **on, max_window_layers=0, layer_types=[SLIDING, FULL, SLIDING])) == [7, None, 7]
    assert windows(args(architecture, use_sliding_window=True, sliding_window=None, max_window_layers=0)) == [None] * 3


def test_sliding_layers_need_a_window() -> None:
    with pytest.raises(UnsupportedError, match="`layer_types` has sliding layers, but `sliding_window` is 8"):
        args("qwen2", sliding_window=8, layer_types=[SLIDING] * 3).specs()


def test_layers_of_gemma() -> None:
    assert args("gemma3_text", num_hidden_layers=7).kinds() == [*[SLIDING] * 5, FULL, SLIDING]
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        assert args("gemma3_text", **{key: 2}).kinds() == [SLIDING, FULL, SLIDING]
    assert args("gemma3_text", layer_types=[FULL] * 3, sliding_window_pattern=2).kinds() == [FULL] * 3


def test_windows_of_gemma() -> None:
    """Where a token sees both ways, the window is halved."""
    causal = args("gemma3_text", sliding_window=12, query_pre_attn_scalar=16)
    assert causal.spec_of(SLIDING) == AttentionSpec(scale=0.25, causal=True, window=11)
    assert causal.spec_of(FULL) == AttentionSpec(scale=0.25, causal=True)
    both = args("gemma3_text", sliding_window=12, query_pre_attn_scalar=16, use_bidirectional_attention=True)
    assert both.spec_of(SLIDING) == AttentionSpec(scale=0.25, window=6)
    assert both.spec_of(FULL) == AttentionSpec(scale=0.25)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 625.0, "rope_local_base_freq": 16.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 2.0, "rope_theta": 625.0},
                SLIDING: {"rope_type": "default", "rope_theta": 16.0},
            }
        },
    ],
    ids=["old", "new"],
)
def test_rotations_of_gemma(config: dict[str, Any]) -> None:
    made = args("gemma3_text", head_dim=8, **config)
    assert np.allclose(made.rope_of(FULL).inverse_frequencies, [1 / 2, 1 / 10, 1 / 50, 1 / 250])
    assert np.allclose(made.rope_of(SLIDING).inverse_frequencies, [1, 1 / 2, 1 / 4, 1 / 8])


def test_rotations_of_gemma_without_settings() -> None:
    made = args("gemma3_text", head_dim=4)
    assert np.allclose(made.rope_of(FULL).inverse_frequencies, [1, 1e-3])
    assert np.allclose(made.rope_of(SLIDING).inverse_frequencies, [1, 1e-2])


def test_heads() -> None:
    assert args("llama").heads.width == 8
    assert args("llama", head_dim=6).heads.width == 6
    assert args("qwen3").heads.width == 128
    assert args("qwen3", head_dim=None).heads.width == 8
    assert (args("llama").heads.keys, args("llama", num_key_value_heads=2).heads.keys) == (4, 2)


def test_projection_of_unknown_width(tmp_path: Path) -> None:
    folder = edit(tmp_path, "voyage-nano", config={"num_labels": None})
    with pytest.raises(CheckpointError, match=r"`linear\.weight` projects every token.*`num_labels`"):
        build(open_checkpoint(folder, facts_of), NumpyOps())


@pytest.mark.parametrize("name", ["llama", "llama_bidirec", "mistral"])
def test_names_of_other_classes_and_of_old_conversions(tmp_path: Path, name: str) -> None:
    """With or without `model.` before all names, a language model's head, stored frequencies: the same outputs."""
    added = {"lm_head.weight": (663, 32), "layers.0.self_attn.rotary_emb.inv_freq": (4,)}
    names = {"model.": ""} if name == "llama" else {"layers.": "model.layers.", "embed": "model.embed"}
    folder = edit(tmp_path, name, rename=names, add=added)
    case = Fixture(name).cases[0]
    engine = NumpyEngine(open_checkpoint(folder, facts_of), "padded")
    pooled = engine.run(Batch.pad([case.encoding])).pooled[0]
    assert np.abs(pooled - case.output).max() < 1e-4


@pytest.mark.parametrize("pooling", ["avg", "cls", "last"])
def test_classifier_of_llama_bidirec(pooling: str) -> None:
    p, w = parameters(out__weight=(2, 32))
    head = llama_bidirec.Classifier(args("llama_bidirec", pooling=pooling, temperature=4), 2, p)
    x = values(5, 32)
    pooled = {"avg": x.mean(0), "cls": x[0], "last": x[-1]}[pooling]
    assert np.allclose(head(NumpyOps(), Value(x), packed(5)).raw, [pooled @ w["out.weight"].T / 4])


def test_unknown_pooling_of_a_classifier() -> None:
    p, _ = parameters(out__weight=(2, 32))
    with pytest.raises(UnsupportedError, match="`pooling` is 'weighted_avg'"):
        llama_bidirec.Classifier(args("llama_bidirec", pooling="weighted_avg"), 2, p)


@pytest.mark.parametrize("pooling", ["bos", "mean", "late"])
def test_classifier_of_eurobert(pooling: str) -> None:
    """`late`: the mean of all tokens' logits, which is not the logits of the mean."""
    p, w = parameters(dense__weight=(32, 32), dense__bias=(32,), out__weight=(2, 32), out__bias=(2,))
    head = eurobert.Classifier(args("eurobert", classifier_pooling=pooling), 2, p)
    x = values(5, 32)

    def logits(x: NDArray[np.float64]) -> NDArray[np.float64]:
        dense = x @ w["dense.weight"].T + w["dense.bias"]
        active = dense * (1 + np.vectorize(math.erf)(dense / math.sqrt(2))) / 2
        return np.asarray(active @ w["out.weight"].T + w["out.bias"])

    expected = {"bos": logits(x[0]), "mean": logits(x.mean(0)), "late": logits(x).mean(0)}
    result = head(NumpyOps(), Value(x), packed(5)).raw
    assert np.allclose(result, [expected[pooling]])
