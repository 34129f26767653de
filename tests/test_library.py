"""The library: real checkpoints against their reference outputs, any number of inputs, threads, errors, the end."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import text_embeddings_inference
from tests.fakes import FakeEngine, fake_embedder, fake_info, pooled_vector
from text_embeddings_inference import Embedder, EncodeOptions, Pooling, load
from text_embeddings_inference.errors import (
    DimensionsError,
    EmptyInputError,
    HubError,
    InferenceError,
    InputError,
    ModelTypeError,
    StartError,
    UnsupportedError,
)
from text_embeddings_inference.inference import chunks
from text_embeddings_inference.inference.request import CHUNKS_QUEUED
from text_embeddings_inference.loading import open as opening
from text_embeddings_inference.queueing.jobs import JobGroup
from text_embeddings_inference.types import Batch, Float32Array, Input, Kind

MODELS = Path(__file__).parent / "fixtures" / "models"
TOLERANCE = 1e-4
STRICT = EncodeOptions(truncate=False)


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MODELS / name / "expected.json").read_text())
    return content


def texts(name: str) -> list[str]:
    return [case["text"] for case in expected(name)["texts"]]


def values(name: str, key: str) -> Float32Array:
    """What the reference gives for each text."""
    return np.array([case[key] for case in expected(name)["texts"]], np.float32)


def close_to(found: Any, reference: Any) -> None:
    np.testing.assert_allclose(found, reference, rtol=0, atol=TOLERANCE)


@contextmanager
def loaded(name: str, **options: Any) -> Iterator[Embedder]:
    with load(MODELS / name, **({"dtype": "float32", "threads": 2, "streams": 1} | options)) as model:
        yield model


@pytest.fixture(scope="module")
def bert() -> Iterator[Embedder]:
    with loaded("bert") as model:
        yield model


# --- real checkpoints -------------------------------------------------------------------------------------------------


def test_embed(bert: Embedder) -> None:
    found = bert.embed(texts("bert"))
    assert found.dtype == np.float32
    close_to(found, values("bert", "embedding"))
    close_to(bert.embed(texts("bert"), normalize=False), values("bert", "embedding_unnormalized"))


def test_embed_fewer_dimensions(bert: Embedder) -> None:
    vectors = values("bert", "embedding_unnormalized")[:, :8]
    close_to(bert.embed(texts("bert"), dimensions=8), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert bert.embed(["a"], dimensions=32).shape == (1, 32)


def test_embed_all(bert: Embedder) -> None:
    cases = [case for case in expected("bert")["texts"] if "last_hidden_state" in case]
    assert cases
    for found, case in zip(bert.embed_all([case["text"] for case in cases]), cases, strict=True):
        close_to(found, case["last_hidden_state"])


def test_token_ids_are_run_as_they_are(bert: Embedder) -> None:
    ids: list[Input] = [case["input_ids"] for case in expected("bert")["texts"]]
    close_to(bert.embed(ids), values("bert", "embedding"))


def test_another_pooling() -> None:
    with loaded("bert", pooling=Pooling.CLS) as model:
        assert model.info.pooling is Pooling.CLS
        reference = [case["pooled"]["cls"] for case in expected("bert")["texts"]]
        close_to(model.embed(texts("bert"), normalize=False), reference)


def test_embed_through_a_dense_module() -> None:
    with loaded("bert-dense") as model:
        close_to(model.embed(texts("bert-dense")), values("bert-dense", "embedding"))
        token_vectors = model.embed_all(["a"])[0]
        assert token_vectors.shape[1] == expected_width("bert-dense"), "of the encoder, not of the Dense module"


def expected_width(name: str) -> int:
    width: int = json.loads((MODELS / name / "config.json").read_text())["hidden_size"]
    return width


def test_predict() -> None:
    reference = expected("bert-classifier")
    with loaded("bert-classifier") as model:
        cases = reference["texts"] + reference["pairs"]
        inputs: list[Input] = [
            (case["text"], case["text_pair"]) if "text_pair" in case else case["text"] for case in cases
        ]
        for key, raw in (("softmax", False), ("logits", True)):
            for found, case in zip(model.predict(inputs, raw_scores=raw), cases, strict=True):
                scores = {prediction.label: prediction.score for prediction in found}
                close_to([scores[label] for label in model.info.labels], case[key])
                assert list(scores.values()) == sorted(scores.values(), reverse=True)


def test_rerank() -> None:
    reference = expected("bert-reranker")["rerank"]
    with loaded("bert-reranker") as model:
        for key, raw in (("scores", False), ("raw_scores", True)):
            found = model.rerank(reference["query"], reference["texts"], raw_scores=raw)
            assert [rank.index for rank in found] == reference["order"]
            close_to([rank.score for rank in found], [reference[key][place] for place in reference["order"]])
        assert model.rerank("a", []) == []


def test_embed_sparse() -> None:
    cases = expected("bert-splade")["texts"]
    with loaded("bert-splade", pooling=Pooling.SPLADE) as model:
        for found, case in zip(model.embed_sparse(texts("bert-splade")), cases, strict=True):
            dense = np.zeros(model.info.dimensions, np.float32)
            dense[found.indices] = found.values
            reference = np.zeros_like(dense)
            for index, value in case["sparse"].items():
                reference[int(index)] = value
            close_to(dense, reference)
            assert found.indices.tolist() == sorted(found.indices.tolist())


def test_a_splade_model_gives_dense_vectors_too() -> None:
    with loaded("bert-splade", pooling=Pooling.SPLADE) as model:
        plain = model.embed(texts("bert-splade"), normalize=False)
        found = model.embed(texts("bert-splade"))
        assert found.shape == (len(plain), model.info.dimensions)
        close_to(found, plain / np.linalg.norm(plain, axis=1, keepdims=True))


# --- any number of inputs, from any thread ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 33, 400])
def test_any_number_of_inputs(bert: Embedder, count: int) -> None:
    places = [random.Random(count).randrange(8) for _ in range(count)]
    found = bert.embed([texts("bert")[place] for place in places])
    assert found.shape == (count, 32)
    close_to(found, values("bert", "embedding")[places])


def test_nothing_gives_nothing(bert: Embedder) -> None:
    assert bert.embed([], dimensions=5).shape == (0, 5)
    assert bert.embed_all([]) == []


def test_several_threads_and_streams() -> None:
    reference, given = values("bert", "embedding"), texts("bert")

    def client(seed: int) -> None:
        places = random.Random(seed).sample(range(8), 8) * 3
        close_to(model.embed([given[place] for place in places]), reference[places])

    before = set(threading.enumerate())
    with loaded("bert", streams=2) as model, ThreadPoolExecutor(4) as clients:
        list(clients.map(client, range(20)))
    assert before.issuperset(threading.enumerate())


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_a_model_cannot_do(bert: Embedder) -> None:
    for call in (lambda: bert.embed_sparse(["a"]), lambda: bert.predict(["a"]), lambda: bert.rerank("a", ["b"])):
        with pytest.raises(ModelTypeError):
            call()


def test_the_first_unusable_input_is_raised(bert: Embedder) -> None:
    with pytest.raises(EmptyInputError):
        bert.embed(["a", "", "b " * 100], options=STRICT)
    with pytest.raises(InputError, match="must have less than 48 tokens"):
        bert.embed(["a", "b " * 100, ""], options=STRICT)


@pytest.mark.parametrize("dimensions", [-1, 0, 33])
def test_dimensions_out_of_range(bert: Embedder, dimensions: int) -> None:
    with pytest.raises(DimensionsError):
        bert.embed(["a"], dimensions=dimensions)


def test_one_text_is_not_a_list_of_texts(bert: Embedder) -> None:
    for call in (bert.embed, bert.embed_all):
        with pytest.raises(TypeError, match="not a single text"):
            call("text")


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="warp_speed"):
        load(MODELS / "bert", warp_speed=True)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="config"):
        load(tmp_path)


def test_what_is_not_implemented_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="--dtype"):
        load(MODELS / "bert", engine="openvino", dtype="float16")


def test_an_engine_that_can_run_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: Batch) -> None:
        raise RuntimeError("no such instruction")

    engine = FakeEngine(on_run=broken)
    monkeypatch.setattr(opening, "make_engine", lambda *_: engine)
    with pytest.raises(StartError, match="no such instruction"):
        load(MODELS / "bert")
    assert engine.closed == 1


def test_closed() -> None:
    with closing(load(MODELS / "bert", dtype="float32", threads=1)) as model:
        model.embed(["a"])
        model.close()
        with pytest.raises(InferenceError, match="closed"):
            model.embed(["a"])


# --- on a fake engine -------------------------------------------------------------------------------------------------


def test_limits_of_a_batch_are_the_options() -> None:
    with fake_embedder(engine := FakeEngine(), max_batch_requests=3) as model:
        ids: list[Input] = [[id_] for id_ in range(1, 9)]
        np.testing.assert_array_equal(
            model.embed(ids, normalize=False), [pooled_vector([id_], 4) for id_ in range(1, 9)]
        )
        assert [len(ran.inputs) for ran in engine.batches] == [3, 3, 2]
    assert engine.closed == 1


def test_of_equal_scores_the_later_text_comes_first() -> None:
    with fake_embedder(FakeEngine(dimensions=1), fake_info(Kind.RERANKER)) as model:
        assert [rank.index for rank in model.rerank("1", ["2", "3 4", "5", "6 7"])] == [3, 1, 2, 0]
        with pytest.raises(TypeError, match="not a single text"):
            model.rerank("1", "2")


def test_an_input_that_fails_raises_and_others_go_on() -> None:
    with fake_embedder(engine := FakeEngine()) as model:
        engine.bad_ids = {13}
        with pytest.raises(InferenceError) as caught:
            model.embed(["1", "13", "2"])
        assert str(caught.value.__cause__) == "bad input [13]"
        assert model.embed(["1", "2"]).shape == (2, 4)


def test_an_interrupt_drops_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    with fake_embedder(engine, max_batch_requests=1) as model, monkeypatch.context() as patches:
        submit = model.runner.submit

        def interrupted(group: JobGroup) -> None:
            submit(group)
            engine.wait_for(1)
            raise KeyboardInterrupt

        patches.setattr(model.runner, "submit", interrupted)
        engine.hold()
        with pytest.raises(KeyboardInterrupt):
            model.embed(["1", "2", "3"])
        patches.undo()
        engine.let()
        model.embed(["4"])
    assert [ran.inputs for ran in engine.batches] == [[[1]], [[4]]]


def test_many_inputs_go_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_INPUTS", 2)
    with fake_embedder(engine := FakeEngine()) as model:
        texts: list[Input] = [str(number) for number in (5, 6, 5, 7, 8, 9, 6, 10)]
        found = model.embed(texts, normalize=False)
        np.testing.assert_array_equal(found, [pooled_vector([int(cast(str, text))], 4) for text in texts])
        assert sorted(ids for ran in engine.batches for ids in ran.inputs) == [[5], [6], [7], [8], [9], [10]]
        assert max(len(ran.inputs) for ran in engine.batches) <= 2 * CHUNKS_QUEUED


def test_an_unusable_input_of_a_later_chunk_drops_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_INPUTS", 1)
    with fake_embedder(engine := FakeEngine(batch_tokens=1)) as model:
        engine.hold()
        with pytest.raises(EmptyInputError):
            model.embed(["1", "2", ""])
        engine.let()
        model.embed(["4"])
    assert [ran.inputs for ran in engine.batches][-1] == [[4]]
    assert len(engine.batches) <= 3


# --- what the package shows -------------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert text_embeddings_inference.__all__ == ["Embedder", "EncodeOptions", "Pooling", "load"]
    for name in text_embeddings_inference.__all__:
        assert getattr(text_embeddings_inference, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'unload'"):
        text_embeddings_inference.unload  # noqa: B018


def test_pooling_by_its_name() -> None:
    with load(MODELS / "bert", pooling="cls", threads=1) as model:
        assert model.info.pooling is Pooling.CLS
    with pytest.raises(ValueError, match="nothing"):
        load(MODELS / "bert", pooling="nothing")


@pytest.mark.parametrize(
    ("variable", "option", "place"),
    [
        ("HF_HOME", {}, "hub"),
        ("HF_HUB_CACHE", {}, ""),
        ("HUGGINGFACE_HUB_CACHE", {}, ""),
        ("XDG_CACHE_HOME", {}, "huggingface/hub"),
        ("HF_HUB_CACHE", {"hf_home": "folder"}, "hub"),  # what is given by hand wins
        ("HF_HUB_CACHE", {"huggingface_hub_cache": "folder"}, ""),
    ],
)
def test_the_cache_is_that_of_the_hubs_own_client(
    variable: str, option: dict[str, str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(variable, str(tmp_path / ("other" if option else "folder")))
    snapshot = tmp_path / "folder" / place / "models--owner--name" / "snapshots" / ("ab" * 20)
    shutil.copytree(MODELS / "bert", snapshot)
    with load(
        "owner/name", dtype="float32", **{name: str(tmp_path / value) for name, value in option.items()}
    ) as model:
        assert model.embed(["text"]).shape == (1, model.info.dimensions)


def test_offline_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=r"`owner/name` is not in the cache \("):
        load("owner/name", hf_home=str(tmp_path))
