from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import write_json, write_model

from text_embeddings_inference.checkpoint.config import read_config, read_kind, read_labels, read_max_length
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.types import Kind

LABELS: dict[str, Any] = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def kind(folder: Path, *, splade: bool = False, **config: Any) -> Kind:
    write_model(folder, config=config)
    return read_kind(folder, read_config(folder), splade="`--pooling splade`" if splade else "").value


def max_length(
    folder: Path, config: dict[str, Any] | None = None, *, first_position: int | None = 0, **files: Any
) -> int:
    write_model(folder, config=config, **files)
    return read_max_length(folder, read_config(folder), first_position).value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            '{\n  "a": 1,\n  "b" 2\n}',
            "Failed to parse `config.json` in .*: Expecting ':' delimiter at line 3, column 7",
        ),
        ("", "Failed to parse `config.json` .* at line 1, column 1"),
        ("[1]", r"expected an object, got \[1\]"),
        ("[" * 100_000, "recursion"),
        ({"architectures": ["BertModel"]}, r"`model_type` \(a string\) is missing"),
        ({"architectures": ["BertModel"], "model_type": 3}, "`model_type` should be a string, is 3"),
        ({"model_type": "bert"}, r"`architectures` \(a list of strings\) is missing"),
        ({"architectures": None, "model_type": "bert"}, "`architectures` should be a list of strings, is null"),
        ({"architectures": [1], "model_type": "bert"}, "`architectures` should be a list of strings"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: Any, problem: str) -> None:
    write_json(tmp_path / "config.json", content)
    with pytest.raises(CheckpointError, match=problem):
        read_config(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`config\.json` not found"):
        read_config(tmp_path)


def test_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match=r"Failed to parse `config\.json`"):
        read_config(tmp_path)


def test_other_keys_may_hold_anything(tmp_path: Path) -> None:
    write_model(tmp_path, config={"auto_map": {"AutoModel": ["a", None]}, "x": float("nan")})
    assert read_config(tmp_path).model_type == "bert"


@pytest.mark.parametrize(
    ("architectures", "labels", "expected"),
    [
        (["BertModel"], {}, Kind.EMBEDDING),
        (["BertModel"], LABELS, Kind.EMBEDDING),
        (["BertForMaskedLM"], {}, Kind.EMBEDDING),
        ([], {}, Kind.EMBEDDING),
        (["BertForSequenceClassification"], LABELS, Kind.CLASSIFIER),
        (["BertForSequenceClassification"], ONE_LABEL, Kind.RERANKER),
        (["BertForSequenceClassification"], {"id2label": {}, "label2id": {}}, Kind.RERANKER),
        (["BertForSequenceClassification"], {}, Kind.CLASSIFIER),
        (["BertForSequenceClassification"], {"num_labels": 1}, Kind.RERANKER),
        (["BertModel", "BertForSequenceClassification"], LABELS, Kind.CLASSIFIER),
        (["NewForTokenClassification"], {}, Kind.EMBEDDING),
        (["NewForTokenClassification"], {"id2label": LABELS["id2label"]}, Kind.EMBEDDING),
    ],
)
def test_kinds(tmp_path: Path, architectures: list[str], labels: dict[str, Any], expected: Kind) -> None:
    assert kind(tmp_path, architectures=architectures, **labels) is expected


@pytest.mark.parametrize("name", ["BertForTokenClassification", "NewForTokenClassification"])
def test_token_classifiers_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"`architectures`.*{name}"):
        kind(tmp_path, architectures=[name], **LABELS)


def test_splade_needs_a_masked_lm(tmp_path: Path) -> None:
    assert kind(tmp_path, splade=True, architectures=["BertForMaskedLM"]) is Kind.EMBEDDING
    assert kind(tmp_path, splade=True, architectures=["BertForSequenceClassification"], **LABELS) is Kind.CLASSIFIER
    with pytest.raises(UnsupportedError, match="Splade pooling is not supported: model is not a ForMaskedLM model"):
        kind(tmp_path, splade=True, architectures=["BertModel"])


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"label2id": {}}, "`config.json` does not contain `id2label`"),
        ({"id2label": {}}, "`config.json` does not contain `label2id`"),
        ({"id2label": None, "label2id": {}}, "`config.json` does not contain `id2label`"),
        ({"id2label": [], "label2id": {}}, r"`id2label` should be an object, is \[\]"),
        ({"id2label": {"1": "a"}, "label2id": {}}, '`id2label` should be the keys "0" to "0"'),
        ({"id2label": {"0": None}, "label2id": {}}, "`id2label` should be .* each with a name"),
        ({"id2label": {}, "label2id": {"a": "0"}}, "`label2id` should be integers"),
        ({"num_labels": 0}, "`num_labels` should be a number of labels, is 0"),
        ({"num_labels": "3"}, '`num_labels` should be a number of labels, is "3"'),
    ],
)
def test_broken_labels_are_named(tmp_path: Path, labels: dict[str, Any], problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        kind(tmp_path, architectures=["BertForSequenceClassification"], **labels)


@pytest.mark.parametrize(("config", "count"), [({}, 2), ({"num_labels": 3}, 3), ({"id2label": None}, 2)])
def test_classes_that_nobody_named(tmp_path: Path, config: dict[str, Any], count: int) -> None:
    write_model(tmp_path, config=config)
    labels = read_labels(tmp_path, read_config(tmp_path))
    assert labels.names == tuple(f"LABEL_{index}" for index in range(count))
    assert labels.ids == {f"LABEL_{index}": index for index in range(count)}


def test_labels_come_in_the_order_of_classes(tmp_path: Path) -> None:
    ids = {str(index): f"label {index}" for index in reversed(range(12))}
    write_model(tmp_path, config={"id2label": ids, "label2id": {"label 3": 3}})
    labels = read_labels(tmp_path, read_config(tmp_path))
    assert labels.names == tuple(f"label {index}" for index in range(12))
    assert labels.ids == {"label 3": 3}


@pytest.mark.parametrize(
    ("config", "first_position", "expected"),
    [
        ({}, 0, 64),
        ({}, 2, 62),
        ({}, None, 64),
        ({"max_position_embeddings": None, "max_trained_positions": 32, "n_positions": 99}, None, 32),
        ({"max_position_embeddings": None, "n_positions": 99}, 0, 99),
    ],
)
def test_length_from_the_positions(
    tmp_path: Path, config: dict[str, Any], first_position: int | None, expected: int
) -> None:
    assert max_length(tmp_path, config, first_position=first_position) == expected


@pytest.mark.parametrize(
    ("config", "first_position", "expected"),
    [
        ({}, 0, 64),
        ({}, 2, 62),
        ({}, None, 128),
        ({"max_position_embeddings": None}, None, 128),
    ],
)
def test_length_is_capped_by_the_positions(
    tmp_path: Path, config: dict[str, Any], first_position: int | None, expected: int
) -> None:
    length = max_length(tmp_path, config, first_position=first_position, sentence_bert_config={"max_seq_length": 128})
    assert length == expected


def test_a_lowered_length_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    max_length(tmp_path, sentence_bert_config={"max_seq_length": 128})
    assert "`max_seq_length` of `sentence_bert_config.json` is 128: lowered to the 64 positions" in caplog.text


def test_the_first_sentence_file_counts(tmp_path: Path) -> None:
    files = {"sentence_xlnet_config": {"max_seq_length": 7}, "sentence_roberta_config": {"max_seq_length": 8}}
    assert max_length(tmp_path, **files) == 8


@pytest.mark.parametrize(
    ("tokenizer", "positions", "expected"),
    [
        ({"model_max_length": 32}, 64, 32),
        ({"model_max_length": 1000000000000000019884624838656}, 64, 64),
        ({"model_max_length": 256}, 64, 64),
        ({"model_max_length": float("inf")}, 64, 64),
        ({"model_max_length": float("nan")}, 64, 64),
        ({"model_max_length": True}, 64, 64),
        ({"model_max_length": 256}, None, 256),
        ({}, 64, 64),
        (None, 64, 64),
    ],
)
def test_new_sentence_files_leave_the_length_to_the_tokenizer(
    tmp_path: Path, tokenizer: dict[str, Any] | None, positions: int | None, expected: int
) -> None:
    files = {} if tokenizer is None else {"tokenizer_config": tokenizer}
    files["sentence_bert_config"] = {"transformer_task": "feature-extraction"}
    assert max_length(tmp_path, {"max_position_embeddings": positions}, **files) == expected


@pytest.mark.parametrize("content", [{}, {"max_seq_length": None}, {"max_seq_length": "8"}, {"max_seq_length": 0}, "{"])
def test_broken_sentence_files_are_named(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"Failed to parse `sentence_bert_config\.json`"):
        max_length(tmp_path, sentence_bert_config=content)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"max_position_embeddings": None}, "none of `max_position_embeddings`, `max_trained_positions`"),
        ({"max_position_embeddings": "64"}, '`max_position_embeddings` should be a positive integer, is "64"'),
        ({"max_position_embeddings": True}, "`max_position_embeddings` should be a positive integer, is true"),
        ({"max_position_embeddings": 2}, "should be more than 2, the position of the first token, is 2"),
    ],
)
def test_broken_lengths_are_named(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        max_length(tmp_path, config, first_position=2)


def test_what_said_so_is_told(tmp_path: Path) -> None:
    config = {"architectures": ["RobertaModel"], "model_type": "roberta", "max_position_embeddings": 66}
    write_json(tmp_path / "config.json", config)
    read = read_config(tmp_path)
    assert read_max_length(tmp_path, read, 2) == (
        64,
        "`max_position_embeddings` of config.json less 2, its first position",
    )
    assert read_kind(tmp_path, read, splade="").source == "`architectures` of config.json (RobertaModel)"
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 32})
    assert read_max_length(tmp_path, read, 2) == (32, "`max_seq_length` of sentence_bert_config.json")
    write_json(tmp_path / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 16})
    assert read_max_length(tmp_path, read, 2) == (16, "`model_max_length` of tokenizer_config.json")


def test_a_class_without_a_name_gets_that_of_transformers(tmp_path: Path) -> None:
    write_model(tmp_path, config={"id2label": {}, "label2id": {}})
    assert read_labels(tmp_path, read_config(tmp_path)).names == ("LABEL_0",)
