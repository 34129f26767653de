"""The comparison of engines: its models can be made, and what it measures is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.engines.__main__ import main, rows
from bench.engines.beside import END_ID, texts
from bench.engines.models import SHAPES, checkpoint_of
from native.kernels import needs_kernels
from text_embeddings_inference.models.build import find_model_file, read_args


@pytest.mark.parametrize("name", SHAPES)
def test_models_have_what_their_files_support(name: str) -> None:
    checkpoint = checkpoint_of(SHAPES[name])
    args = read_args(checkpoint, find_model_file(checkpoint).architecture)
    assert args.vocab_size >= END_ID, "or there are no embeddings for the ids of the texts"
    assert max(int(encoding.input_ids.max()) for encoding in texts([500])) < END_ID


def test_the_mean_of_ratios_is_geometric() -> None:
    table = {"m": {"a": {"native": 1.0, "openvino": 4.0}, "b": {"native": 2.0, "openvino": 2.0}}}
    assert rows(table)[-1] == "| m | 1, 4 (4.00) | 2, 2 (1.00) | 2.00 |"


@needs_kernels
def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--models=MiniLM", "--dtypes=float32", "--loads=ragged", "--seconds=0", f"--results={tmp_path}"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| MiniLM, float32 | ")
    [saved] = tmp_path.glob("*.json")
    milliseconds = json.loads(saved.read_text())["ms"]["MiniLM, float32"]["ragged"]
    assert milliseconds.keys() == {"native", "openvino"}
    assert min(milliseconds.values()) > 0
