"""Models for late interaction in all formats, and Dense modules on tokens: over HTTP and in process.

The values are those of sentence-transformers, one text at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.extras import needs_torch
from tests.loaded import loaded_model
from tests.native.kernels import needs_kernels
from tests.server.client import Client
from text_embeddings_inference import Embedder, EncodeOptions, load
from text_embeddings_inference.errors import CheckpointError, InputError
from text_embeddings_inference.inference.results import maxsim
from text_embeddings_inference.settings import Settings

LATE = Path(__file__).parents[2] / "fixtures" / "late"
PYLATE = LATE.parent / "models" / "colbert"
STANFORD, MULTI_VECTOR, RESIDUAL, POOLED = "colbert-stanford", "st-multivector", "edge-colbert", "st-token-dense"
NAMES = [STANFORD, MULTI_VECTOR, RESIDUAL]
ROLES = ("query", "document")
TOLERANCE, SUM_TOLERANCE = 1e-4, 1e-3
QUERY = "what is a python list"

on_every_engine = pytest.mark.parametrize(
    "engine", ["openvino", pytest.param("native", marks=needs_kernels), pytest.param("torch", marks=needs_torch)]
)


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((LATE / name / "expected.json").read_text())
    return content


def opened(folder: Path, **options: Any) -> Embedder:
    return load(folder, dtype="float32", threads=2, streams=1, **options)


def serve(folder: Path, **options: Any) -> Client:
    settings = Settings.of(model_id=str(folder), dtype="float32", streams=1, **options)
    return Client(loaded_model(settings), settings)


def vectors(model: Embedder, role: str, texts: list[str]) -> list[NDArray[np.float32]]:
    return model.embed_all(texts, options=EncodeOptions(prompt_name=role))


def sums(model: Embedder, query: str, texts: list[str]) -> list[float]:
    ranks = model.rerank(query, texts, raw_scores=True)
    return [rank.score for rank in sorted(ranks, key=lambda rank: rank.index)]


def check(found: Any, texts: list[dict[str, Any]], role: str) -> None:
    assert len(found) == len(texts) > 0
    for vectors, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(vectors, text[role], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@on_every_engine
def test_vectors_on_every_engine(engine: str, name: str) -> None:
    texts = expected(name)["texts"]
    with opened(LATE / name, engine=engine) as model:
        for role in ROLES:
            check(vectors(model, role, [text["text"] for text in texts]), texts, role)
            for text in texts:
                check(vectors(model, role, [text["text"]]), [text], role)


@pytest.mark.parametrize("name", NAMES)
@on_every_engine
def test_scores_on_every_engine(engine: str, name: str) -> None:
    [case] = expected(name)["rerank"]
    with opened(LATE / name, engine=engine) as model:
        np.testing.assert_allclose(sums(model, case["query"], case["texts"]), case["raw_scores"], atol=SUM_TOLERANCE)
        alone = [sums(model, case["query"], [text])[0] for text in case["texts"]]
        np.testing.assert_allclose(alone, case["raw_scores"], atol=SUM_TOLERANCE)


@on_every_engine
def test_tokens_projected_before_pooling(engine: str) -> None:
    texts = expected(POOLED)["texts"]
    wanted = np.array([text["embedding"] for text in texts])
    with opened(LATE / POOLED, engine=engine) as model:
        found = model.embed([text["text"] for text in texts])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)
        alone = np.concatenate([model.embed([text["text"]]) for text in texts])
        np.testing.assert_allclose(alone, wanted, rtol=0, atol=TOLERANCE)
        [tokens] = model.embed_all([texts[0]["text"]])
        assert tokens.shape[1] == 16
        mean = tokens.mean(0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), wanted[0], atol=TOLERANCE)


def test_tokens_projected_before_pooling_over_http() -> None:
    texts = expected(POOLED)["texts"]
    with serve(LATE / POOLED) as client:
        found = client.post("/embed", {"inputs": [text["text"] for text in texts]})
    np.testing.assert_allclose(found.json, [text["embedding"] for text in texts], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_over_http(name: str) -> None:
    content = expected(name)
    texts, [case] = content["texts"], content["rerank"]
    with serve(LATE / name) as client:
        for role in ROLES:
            body = {"inputs": [text["text"] for text in texts], "prompt_name": role}
            check(client.post("/embed_all", body).json, texts, role)
        body = {"query": case["query"], "texts": case["texts"]}
        found = client.post("/rerank", body | {"raw_scores": True, "return_text": True})
        assert found.status == 200, found.json
        assert [rank["index"] for rank in found.json] == case["order"]
        assert [rank["text"] for rank in found.json] == [case["texts"][i] for i in case["order"]]
        raw = np.array([rank["score"] for rank in found.json])
        np.testing.assert_allclose(raw, np.array(case["raw_scores"])[case["order"]], atol=SUM_TOLERANCE)
        means = client.post("/rerank", body).json
        np.testing.assert_allclose([rank["score"] for rank in means], raw / 32, rtol=1e-5)
        assert client.post("/embed", {"inputs": "a"}).status == 424
        assert client.post("/predict", {"inputs": "a"}).status == 424


def test_a_request_counts_its_query_once() -> None:
    with serve(LATE / STANFORD) as client:
        body = {"inputs": ["Berlin", "no"], "prompt_name": "document"}
        tokens = int(client.post("/embed_all", body).headers["x-compute-tokens"])
        found = client.post("/rerank", {"query": QUERY, "texts": ["Berlin", "no"]})
        assert int(found.headers["x-compute-tokens"]) == tokens + 32


def test_many_texts_and_the_same_ones() -> None:
    with opened(LATE / STANFORD) as model:
        texts = [QUERY, "Berlin", QUERY, *(f"number {i}" for i in range(600)), "Berlin"]
        found = sums(model, QUERY, texts)
        [query], documents = vectors(model, "query", [QUERY]), vectors(model, "document", texts)
        np.testing.assert_allclose(found, [maxsim(query, document) for document in documents], rtol=1e-5)
        assert found[0] == found[2]
        assert found[1] == found[-1]
        assert model.rerank(QUERY, []) == []


def test_maxsim_by_hand() -> None:
    query, document = np.eye(3, dtype=np.float32)[:2], np.array([[0.5, 0, 0], [0.25, -1, 0]], np.float32)
    assert maxsim(query, document) == 0.5 + 0
    assert maxsim(query, document[:0]) == -2


@pytest.mark.parametrize(
    ("body", "message", "place"),
    [
        ({"query": ""}, "`inputs` cannot be empty", "query"),
        ({"texts": ["a", ""]}, "`inputs` cannot be empty", "texts[1]"),
        ({"query": "a b " * 40, "truncate": False}, "must have less than 31 tokens", "query"),
        ({"texts": ["a", "a b " * 80], "truncate": False}, "must have less than 119 tokens", "texts[1]"),
        ({"instruction": "Look."}, "`instruction` is not available", "texts[0]"),
        ({"prompt_name": "query"}, "`prompt_name` is not available", None),
    ],
)
def test_faults(body: dict[str, Any], message: str, place: str | None) -> None:
    with serve(LATE / STANFORD) as client:
        found = client.post("/rerank", {"query": QUERY, "texts": ["Berlin"]} | body)
    assert found.status in (400, 422)
    assert message in found.json["error"]
    assert found.headers.get("x-error-place") == place


def test_faults_in_process() -> None:
    with opened(LATE / STANFORD) as model:
        with pytest.raises(InputError, match="prompt_name"):
            model.rerank(QUERY, ["a"], options=EncodeOptions(prompt_name="document"))
        with pytest.raises(Exception, match=r"at `query`"):
            model.rerank("", ["a"])
        with pytest.raises(Exception, match=r"at `texts\[1\]`"):
            model.rerank(QUERY, ["a", ""])


def changed(tmp_path: Path, name: str, change: Callable[[Path], object]) -> Path:
    folder = tmp_path / name
    shutil.copytree(LATE / name, folder)
    change(folder)
    return folder


def update(file: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def test_queries_of_at_least_a_length(tmp_path: Path) -> None:
    expansion = {"strategy": "min", "length": 12}
    change = update("sentence_bert_config.json", query_expansion=expansion)
    long = "a list of words that is longer than twelve tokens, by far"
    with opened(changed(tmp_path, MULTI_VECTOR, change)) as model:
        short, whole = vectors(model, "query", ["Hi", long])
    assert len(short) == 12
    assert len(whole) > 20


def test_queries_that_are_not_filled_up(tmp_path: Path) -> None:
    change = update("sentence_bert_config.json", query_expansion=None, query_length=6)
    with opened(changed(tmp_path, MULTI_VECTOR, change)) as model:
        one, cut = vectors(model, "query", ["a", QUERY])
        assert (len(one) < 6, len(cut)) == (True, 6)
        [rank] = model.rerank("a", ["a"])
        assert rank.score == pytest.approx(sums(model, "a", ["a"])[0] / len(one))


def test_tokens_that_do_not_count(tmp_path: Path) -> None:
    text = "a, b. c"
    with opened(LATE / MULTI_VECTOR) as model:
        query, document = (len(vectors(model, role, [text])[0]) for role in ROLES)
    change = update("2_MultiVectorMask/config.json", skiplist_tasks="query")
    with opened(changed(tmp_path / "1", MULTI_VECTOR, change)) as model:
        assert len(vectors(model, "query", [text])[0]) < query
        assert len(vectors(model, "document", [text])[0]) > document
    change = update("2_MultiVectorMask/config.json", skiplist_words=None, keep_only_token_ids=[661, 662])
    with opened(changed(tmp_path / "2", MULTI_VECTOR, change)) as model:
        assert len(vectors(model, "query", [text])[0]) == query
        assert len(vectors(model, "document", [text])[0]) == 2


def test_vectors_are_as_long_as_the_modules_say(tmp_path: Path) -> None:
    def drop(folder: Path) -> None:
        file = folder / "modules.json"
        file.write_text(json.dumps(json.loads(file.read_text())[:-1]))

    text = expected(MULTI_VECTOR)["texts"][0]
    with opened(changed(tmp_path, MULTI_VECTOR, drop)) as model:
        [found] = vectors(model, "document", [text["text"]])
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(lengths - 1).max() > 0.01
    check([found / lengths], [text], "document")


def test_the_other_names_of_a_documents_prompt(tmp_path: Path) -> None:
    change = update("config_sentence_transformers.json", prompts={"query": "[Q] ", "passage": "[D] "})
    texts = expected(MULTI_VECTOR)["texts"]
    with opened(changed(tmp_path, MULTI_VECTOR, change), default_prompt_name="document") as model:
        check(model.embed_all([text["text"] for text in texts]), texts, "document")


def test_markers_that_the_tokenizer_would_split(tmp_path: Path) -> None:
    with opened(LATE / STANFORD) as model:
        [encoding] = model._tokenizer.encode(["[unused0]"], EncodeOptions(prompt_name="query"))
        assert not isinstance(encoding, Exception)
        marker = encoding.input_ids[1]
        assert marker not in encoding.input_ids[2:]
    change = update("artifact.metadata", query_token_id="[unused7654]")
    with pytest.raises(CheckpointError, match=r"no token '\[unused7654\]'"):
        opened(changed(tmp_path, STANFORD, change))


def test_punctuation_counts_unless_it_is_masked(tmp_path: Path) -> None:
    change = update("artifact.metadata", mask_punctuation=False, attend_to_mask_tokens=True)
    with opened(LATE / STANFORD) as masked, opened(changed(tmp_path, STANFORD, change)) as model:
        assert len(vectors(model, "document", ["a, b."])[0]) == len(vectors(masked, "document", ["a, b."])[0]) + 2
        seen, unseen = vectors(model, "query", ["a"])[0], vectors(masked, "query", ["a"])[0]
        assert np.abs(seen - unseen).max() > 0.01


def test_without_metadata(tmp_path: Path) -> None:
    with opened(changed(tmp_path, STANFORD, lambda folder: (folder / "artifact.metadata").unlink())) as model:
        texts = expected(STANFORD)["texts"]
        check(vectors(model, "query", [text["text"] for text in texts]), texts, "query")


def test_metadata_alone_say_what_it_is(tmp_path: Path) -> None:
    texts = expected(STANFORD)["texts"]
    with opened(changed(tmp_path, STANFORD, update("config.json", architectures=["BertModel"]))) as model:
        check(vectors(model, "document", [text["text"] for text in texts]), texts, "document")


def test_without_a_projection(tmp_path: Path) -> None:
    def drop(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors["linear.weight"]
        save_file(tensors, folder / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"no matrix `linear\.weight`"):
        opened(changed(tmp_path, STANFORD, drop))


def test_modules_decide_where_there_are_both(tmp_path: Path) -> None:
    """As answerai-colbert-small-v1: PyLate's modules beside Stanford's metadata and projection."""

    def add(folder: Path) -> None:
        (folder / "1_Dense").mkdir()
        weight = load_file(folder / "model.safetensors")["linear.weight"]
        save_file({"linear.weight": np.ascontiguousarray(weight)}, folder / "1_Dense" / "model.safetensors")
        outputs, inputs = weight.shape
        config = {"in_features": inputs, "out_features": outputs, "bias": False}
        (folder / "1_Dense" / "config.json").write_text(json.dumps(config))
        kinds = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
        modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(modules))
        settings = {"query_prefix": "[unused0]", "document_prefix": "[unused1]", "document_length": 120}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))

    texts = expected(STANFORD)["texts"]
    with opened(changed(tmp_path, STANFORD, add)) as model:
        for role in ROLES:
            check(vectors(model, role, [text["text"] for text in texts]), texts, role)


def test_pylate_ranks_too() -> None:
    content = json.loads((PYLATE / "expected.json").read_text())["colbert"]
    documents = [case["text"] for case in content["documents"]]
    with opened(PYLATE) as model:
        for query, wanted in zip(content["queries"], content["maxsim"], strict=True):
            np.testing.assert_allclose(sums(model, query["text"], documents), wanted, atol=SUM_TOLERANCE)
