"""The explanation of folders: nothing is read but what it takes, and every problem is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from extras import HAS_TORCH
from oracle.expected import FIXTURES, MODELS
from text_embeddings_inference import cli, load
from text_embeddings_inference.checkpoint import Weights
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.loading.explain import explain
from text_embeddings_inference.loading.explanation import Explanation
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.settings.engine import ENGINES
from text_embeddings_inference.types import Kind, Pooling

GONE = ("tokenizer.json", "model.safetensors")


def explained(model: Path, **options: object) -> Explanation:
    return explain(Settings.of(model_id=str(model), **options))  # type: ignore[arg-type]


def edited(target: Path, name: str, *, remove: tuple[str, ...] = (), **config: object) -> Path:
    """A copy of the fixture `name` without the files of `remove`, with other values in config.json."""
    for path in (MODELS / name).rglob("*"):
        place = target / path.relative_to(MODELS / name)
        if path.is_file() and path.name not in remove:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    values = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(values | config))
    return target


def test_an_embedding_model() -> None:
    found = explained(MODELS / "bert-dense")
    assert (found.served, found.problems) == (True, ())
    assert found.architecture is not None
    assert found.architecture.module == "models/bert.py"
    assert found.architecture.reason == "`model_type` of config.json is 'bert'"
    assert found.task is not None
    assert (found.task.kind, found.task.pooling, found.task.pooling_source) == (
        Kind.EMBEDDING,
        Pooling.CLS,
        "1_Pooling/config.json",
    )
    assert found.task.dense_modules == ((32, 24),)
    assert (found.dimensions, found.vocabulary) == (24, 900)
    assert found.limits is not None
    assert (found.limits.max_input_length, found.limits.model_length_source) == (
        56,
        "`max_seq_length` of sentence_bert_config.json",
    )
    assert {file.name for file in found.files} == {
        path.relative_to(MODELS / "bert-dense").as_posix()
        for path in (MODELS / "bert-dense").rglob("*")
        if path.name not in ("expected.json", "special_tokens_map.json") and "2_Dense_16" not in path.parts
    } - {"1_Pooling", "2_Dense"}


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_would_be_served(name: str) -> None:
    found = explained(MODELS / name)
    assert (found.served, found.problems) == (True, ())
    assert found.dimensions
    assert f"{name} would be served" in found.text()


def test_options_count() -> None:
    found = explained(MODELS / "bert", pooling=Pooling.LAST_TOKEN, max_batch_tokens=16)
    assert found.task is not None
    assert (found.task.pooling, found.task.pooling_source) == (Pooling.LAST_TOKEN, "`--pooling`")
    assert found.limits is not None
    assert (found.limits.max_input_length, found.limits.model_length) == (16, 48)
    assert "16 tokens, from `--max-batch-tokens`" in found.text()
    assert any("Inputs are cut to 16 tokens" in warning for warning in found.warnings)


def test_weights_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Weights, name: str) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(Weights, "array", fail)
    assert explained(MODELS / "mpnet").served


def test_every_problem_is_told(tmp_path: Path) -> None:
    model = edited(tmp_path, "bert", remove=GONE, hidden_act="rotary")
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text('[{"path": "", "type": "a.LSTM"}]')
    found = explained(model, engine="openvino", dtype="float16")
    texts = [problem.message for problem in found.problems]
    wanted = ["a.LSTM", "no mode is set", "tokenizer.json not found", "no weights in", "--dtype float16"]
    assert [text for text, part in zip(texts, wanted, strict=True) if part not in text] == []
    assert not found.served
    assert found.limits is not None
    assert found.limits.model_length == 48, "what is right is told all the same"


def test_config_and_tensors_are_checked(tmp_path: Path) -> None:
    [problem] = explained(edited(tmp_path, "bert", hidden_act="rotary")).problems
    assert "`hidden_act` is 'rotary'" in problem.message
    [problem] = explained(edited(tmp_path, "bert", hidden_size=64)).problems
    assert "config.json asks for [900, 64]" in problem.message
    [problem] = explained(edited(tmp_path, "bert", model_type="bart"), engine="openvino").problems
    assert problem.message == "config.json: `model_type` is 'bart', which is not supported on OpenVINO"
    assert problem.hint is not None


def test_weights_without_a_tensor(tmp_path: Path) -> None:
    model, name = edited(tmp_path, "bert", remove=("model.safetensors",)), "model.safetensors"
    save_file({}, model / name)
    [problem] = explained(model).problems
    assert problem.message == f"there is no tensor in {model / name}"
    with pytest.raises(CheckpointError, match="there is no tensor in"):
        load(model)


def test_without_a_config_nothing_more_is_known(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    [problem] = explained(tmp_path / "model").problems
    assert "`config.json` not found" in problem.message
    [problem] = explained(tmp_path / "no such model").problems
    assert "neither an existing folder nor the id" in problem.message


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["--explain", str(MODELS / "bert")]) == 0
    assert capsys.readouterr().out.startswith(f"{MODELS / 'bert'} would be served\n\narchitecture ")
    assert cli.main(["--model-id", str(tmp_path), "--explain"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path} would not be served: 1 problem\n")
    assert err == ""


def test_command_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--explain", str(MODELS / "bert-reranker"), "--json-output"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["served"], found["task"]["kind"], found["task"]["labels"]) == (True, "reranker", ["LABEL_0"])
    assert found["memory"]["weights"] == (MODELS / "bert-reranker" / "model.safetensors").stat().st_size


def test_a_graph(tmp_path: Path) -> None:
    model = MODELS.parent / "onnx" / "bert"
    found = explained(model)
    assert (found.served, found.dimensions, found.vocabulary) == (True, 32, 900)
    assert found.architecture is not None
    assert (found.architecture.module, found.architecture.reason) == ("model.onnx", "there are no other weights")
    assert "onnx/model.onnx" in [file.name for file in found.files]
    [problem] = explained(model, dtype="int8").problems
    assert "an ONNX graph, which is run as it is" in problem.message
    copied = edited(tmp_path, "../onnx/bert")
    (copied / "onnx" / "model.onnx").write_bytes(b"x")
    [problem] = explained(copied).problems
    assert "no ONNX graph that OpenVINO can read" in problem.message


@pytest.mark.parametrize(("name", "word"), [("surplus-t5", "decoder"), ("add-eos-contradiction", "add_eos_token")])
def test_what_the_start_warns_of_is_told(name: str, word: str) -> None:
    found = explained(MODELS.parent / "variants" / name)
    assert found.served
    assert [line for line in found.warnings if word in line]


QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("file", "name", "stored"),
    [
        ("model.safetensors", QUERY, np.int8),
        ("model.safetensors", "embeddings.word_embeddings.weight", np.uint8),
        ("model.safetensors", "embeddings.LayerNorm.bias", np.int64),
        ("model.safetensors", QUERY, np.bool_),
        ("2_Dense/model.safetensors", "linear.weight", np.int8),
    ],
)
def test_integer_weights_are_refused_as_at_a_start(tmp_path: Path, file: str, name: str, stored: type[Any]) -> None:
    model = edited(tmp_path, "bert-dense")
    tensors = load_file(model / file)
    [name] = [found for found in tensors if found.endswith(name)]
    tensors[name] = tensors[name].astype(stored)
    save_file(tensors, model / file)
    [problem] = explained(model).problems
    assert f"tensor `{name}` in {model / file} is " in problem.message
    assert problem.hint is not None
    for engine in ENGINES if HAS_TORCH else ENGINES[:1]:
        with pytest.raises(UnsupportedError) as caught:
            load(model, engine=engine)
        assert caught.value.args[0] == problem.message


def test_an_engine_says_why_it_can_not_run_the_model() -> None:
    found = explained(MODELS / "bert", dtype="float16", engine="openvino")
    assert [problem.message for problem in found.problems] == [
        "`--dtype float16`: CPUs run float32, bfloat16 and int8 only"
    ]
    assert found.dimensions == 32, "which is known all the same"


def test_which_model_type_it_is() -> None:
    assert explained(MODELS / "bert").model_type == "bert"


def test_a_table_of_vectors_needs_no_config() -> None:
    found = explain(Settings.of(model_id=str(MODELS.parent / "modules" / "static-retrieval")))
    assert found.served
    assert found.architecture is not None
    assert found.architecture.reason == "it is a StaticEmbedding, by modules.json or by model2vec's config.json"
    assert found.limits is not None
    assert found.limits.max_input_length == found.limits.max_batch_tokens
