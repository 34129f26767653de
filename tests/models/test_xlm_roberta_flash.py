"""Jina's own code for XLM-RoBERTa: how it is recognised, its positions of both kinds, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import edit

from extras import needs_torch
from native.kernels import needs_kernels
from oracle.engine import NumpyEngine
from oracle.expected import Fixture
from text_embeddings_inference import load
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.models import choose
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Batch

RERANKER = Path(__file__).parents[1] / "fixtures" / "variants" / "jina-reranker-v2-base-multilingual"
CLASS = "configuration_xlm_roberta.XLMRobertaFlashConfig"
ENGINES = ["openvino", pytest.param("native", marks=needs_kernels), pytest.param("torch", marks=needs_torch)]


@pytest.mark.parametrize("owner", ["", "jinaai/xlm-roberta-flash-implementation--", "someone/fork--"])
def test_recognised_by_its_class(owner: str) -> None:
    choice = choose("xlm-roberta", {"auto_map": {"AutoConfig": owner + CLASS}})
    assert choice is not None
    assert choice.module == "xlm_roberta_flash"
    assert CLASS in choice.reason


@pytest.mark.parametrize("engine", ENGINES)
def test_reranker_alone_and_in_a_batch(engine: str) -> None:
    [case] = json.loads((RERANKER / "expected.json").read_text())["rerank"]
    with load(RERANKER, engine=engine, dtype="float32") as model:
        together = {rank.index: rank.score for rank in model.rerank(case["query"], case["texts"], raw_scores=True)}
        alone = [model.rerank(case["query"], [text], raw_scores=True)[0].score for text in case["texts"]]
    assert np.allclose([together[place] for place in range(len(together))], case["raw_scores"], atol=1e-4)
    assert np.allclose(alone, case["raw_scores"], atol=1e-4)


def test_length_of_a_table_of_positions() -> None:
    assert open_checkpoint(RERANKER, facts_of).max_input_length == 128  # of 130 rows


def test_rotary_positions(tmp_path: Path) -> None:
    """The tensors that Transformers saves for Jina Embeddings v3 have the same names."""
    config: dict[str, Any] = {"model_type": "xlm-roberta", "auto_map": {"AutoConfig": CLASS}}
    config |= {"position_embedding_type": "rotary", "rotary_emb_base": theta()}
    folder = edit(tmp_path, "jina_embeddings_v3", config=config)
    engine = NumpyEngine(open_checkpoint(folder, facts_of), "padded")
    case = Fixture("jina_embeddings_v3").cases[0]
    assert np.abs(engine.run(Batch.pad([case.encoding])).pooled[0] - case.output).max() < 1e-4


@pytest.mark.parametrize(
    ("key", "value"),
    [("lora_adaptations", ["separation"]), ("rotary_emb_interleaved", True), ("position_embedding_type", "alibi")],
)
def test_what_it_refuses(tmp_path: Path, key: str, value: object) -> None:
    shutil.copytree(RERANKER, tmp_path, dirs_exist_ok=True)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {key: value}))
    with pytest.raises(UnsupportedError, match=key):
        NumpyEngine(open_checkpoint(tmp_path, facts_of), "padded")


def theta() -> float:
    """The fixture's rotary base."""
    config = json.loads((Fixture("jina_embeddings_v3").folder / "config.json").read_text())
    return float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
