"""Text models of families with something of their own, on every engine and over HTTP, against their references."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extras import needs_torch
from tests.loaded import loaded_model
from tests.native.kernels import needs_kernels
from tests.server.client import Client
from text_embeddings_inference import EncodeOptions, load
from text_embeddings_inference.errors import UnsupportedError
from text_embeddings_inference.settings import Settings

EMBEDDERS = Path(__file__).parents[2] / "fixtures" / "embedders"
"""The tensors of towers for images and sound have been cut down to one number: nobody reads them."""
NAMES = sorted(path.name for path in EMBEDDERS.iterdir())
QWEN3_VL, GEMMA_2, NEMOTRON = "Qwen3-VL-Embedding-2B", "embeddinggemma-2", "nemotron-3-embed"
COSINE = 0.99999


def cases(name: str) -> list[dict[str, Any]]:
    """Texts, and texts with prompts, which have a `prompt_name`."""
    expected = json.loads((EMBEDDERS / name / "expected.json").read_text())
    return [*expected["texts"], *expected.get("prompt_cases", [])]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "engine", ["openvino", pytest.param("native", marks=needs_kernels), pytest.param("torch", marks=needs_torch)]
)
def test_vectors_on_every_engine(name: str, engine: str) -> None:
    with load(EMBEDDERS / name, dtype="float32", threads=2, streams=1, engine=engine) as model:
        for prompt in {case.get("prompt_name") for case in cases(name)}:
            asked = [case for case in cases(name) if case.get("prompt_name") == prompt]
            wanted = np.array([case["embedding"] for case in asked])
            texts, options = [case["text"] for case in asked], EncodeOptions(prompt_name=prompt)
            together = model.embed(texts, options=options)
            alone = np.concatenate([model.embed([text], options=options) for text in texts])
            for found in (together, alone):
                assert (found * wanted).sum(1).min() >= COSINE


@pytest.mark.parametrize("name", NAMES)
def test_over_http(name: str) -> None:
    settings = Settings.of(model_id=str(EMBEDDERS / name), dtype="float32", streams=1)
    with Client(loaded_model(settings), settings) as client:
        for case in cases(name):
            body = {"inputs": case["text"]} | {key: case[key] for key in ("prompt_name",) if key in case}
            found = client.post("/embed", body)
            assert found.status == 200, found.json
            assert np.dot(found.json[0], case["embedding"]) >= COSINE


@pytest.mark.parametrize(("name", "towers"), [(QWEN3_VL, ["visual"]), (GEMMA_2, ["vision_tower", "audio_tower"])])
def test_what_sees_and_hears_is_left_out(name: str, towers: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with load(EMBEDDERS / name, dtype="float32", threads=2, streams=1):
        for tower in towers:
            assert f"{tower}` (" in caplog.text
    assert "Only texts are served" in caplog.text


def edited(name: str, target: Path, text_config: dict[str, Any] | None = None, **config: Any) -> Path:
    """A copy with other keys in config.json, or in its `text_config`."""
    shutil.copytree(EMBEDDERS / name, target)
    values = json.loads((target / "config.json").read_text()) | config
    values.get("text_config", {}).update(text_config or {})
    (target / "config.json").write_text(json.dumps(values))
    return target


def vectors(folder: Path, texts: list[str]) -> Any:
    with load(folder, dtype="float32", threads=2, streams=1) as model:
        return model.embed(texts)


def test_the_older_spelling_of_three_axes(tmp_path: Path) -> None:
    older = {"rope_theta": 5_000_000.0, "rope_parameters": None}
    older["rope_scaling"] = {"type": "mrope", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    found = vectors(edited(QWEN3_VL, tmp_path / "older", older), [case["text"] for case in cases(QWEN3_VL)])
    assert (found * [case["embedding"] for case in cases(QWEN3_VL)]).sum(1).min() >= COSINE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"llama_4_scaling_beta": "much"}, "`llama_4_scaling_beta` should be a number"),
        ({"original_max_position_embeddings": None}, "needs `original_max_position_embeddings`"),
    ],
)
def test_growth_that_is_none(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = json.loads((EMBEDDERS / NEMOTRON / "config.json").read_text())
    folder = edited(NEMOTRON, tmp_path / "broken", rope_parameters=config["rope_parameters"] | settings)
    with pytest.raises(UnsupportedError, match=message):
        load(folder, dtype="float32")


def test_queries_grow_with_their_positions(tmp_path: Path) -> None:
    """Without growth the long texts get other vectors, the short ones the same."""
    config = json.loads((EMBEDDERS / NEMOTRON / "config.json").read_text())
    rope = config["rope_parameters"] | {"llama_4_scaling_beta": 0}
    texts = ["short", "a longer text, " * 20]
    plain = vectors(edited(NEMOTRON, tmp_path / "plain", rope_parameters=rope), texts)
    first, second = (plain * vectors(EMBEDDERS / NEMOTRON, texts)).sum(1)
    assert first > 1 - 1e-6 > 1 - 1e-5 > second
