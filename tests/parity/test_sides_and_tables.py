"""What modules.json makes of a model: tables of vectors, forms of SPLADE, and models with several sides, in process on
each engine, one by one and together. The references are sentence-transformers 6.2 in float32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from extras import needs_torch
from native.kernels import needs_kernels
from oracle.expected import MODELS
from text_embeddings_inference import Embedder, EncodeOptions, load
from text_embeddings_inference.errors import InputError, ModelTypeError
from text_embeddings_inference.inference.results import Sparse
from text_embeddings_inference.types import Float32Array

CASES = Path(__file__).parents[1] / "fixtures" / "modules"
ST = "sentence_transformers.sparse_encoder.models."
QUERY = EncodeOptions(prompt_name="query")
DOCUMENT = EncodeOptions(prompt_name="document")
PLAIN = EncodeOptions()
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
on_each_engine = pytest.mark.parametrize(
    "engine",
    [
        pytest.param("native", marks=needs_kernels),
        pytest.param("openvino", marks=needs_openvino),
        pytest.param("torch", marks=needs_torch),
    ],
)


def expected(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return content


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def opened(folder: Path, engine: str) -> Embedder:
    return load(folder, dtype="float32", engine=engine, threads=2, streams=1)


def dense(entries: Sparse | dict[str, float], width: int) -> Float32Array:
    row = np.zeros(width, np.float32)
    if isinstance(entries, Sparse):
        row[entries.indices] = entries.values
    else:
        row[[int(id_) for id_ in entries]] = list(entries.values())
    return row


def sparse_of(model: Embedder, texts: list[str], options: EncodeOptions = PLAIN) -> Float32Array:
    """All texts at once, which is what each gives by itself."""
    width = model.info.dimensions
    together = np.stack([dense(row, width) for row in model.embed_sparse(texts, options=options)])
    alone = [dense(model.embed_sparse([text], options=options)[0], width) for text in texts]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * max(1, float(np.abs(together).max())))
    return together


# --- tables of vectors ------------------------------------------------------------------------------------------------


@on_each_engine
@pytest.mark.parametrize("name", ["static-retrieval", "potion"])
def test_tables_of_vectors(engine: str, name: str) -> None:
    cases = expected(CASES / name)["texts"]
    texts = [case["text"] for case in cases]
    with opened(CASES / name, engine) as model:
        for found in (model.embed(texts), np.concatenate([model.embed([text]) for text in texts])):
            np.testing.assert_allclose(found, [case["embedding"] for case in cases], rtol=0, atol=1e-5)
        assert len(model.embed(["dog " * 4000])) == 1, "nothing limits a text but the batch"


@pytest.fixture
def quantized(tmp_path: Path) -> tuple[Path, Float32Array]:
    """A folder as newer versions of model2vec write it, without modules.json, and the row of each token in it."""
    folder = shutil.copytree(CASES / "potion", tmp_path / "model")
    (folder / "modules.json").unlink()
    table = load_file(folder / "model.safetensors")["embeddings"]
    random = np.random.default_rng(0)
    few = np.round(100 * table[:50]).astype(np.int8)
    mapping = random.integers(0, 50, len(table))
    factors = random.uniform(0.1, 2, len(table)).astype(np.float32)
    save_file({"embeddings": few, "mapping": mapping, "weights": factors}, folder / "model.safetensors")
    return folder, few[mapping].astype(np.float32) * factors[:, None]


@on_each_engine
def test_mapping_and_weights_of_model2vec(engine: str, quantized: tuple[Path, Float32Array]) -> None:
    folder, rows = quantized
    ids = [[7, 7, 300], [12], list(range(20, 60))]
    with opened(folder, engine) as model:
        found = model.embed(ids, normalize=False)
    np.testing.assert_allclose(found, [rows[text].mean(0) for text in ids], rtol=1e-5, atol=1e-5)


# --- forms of SPLADE --------------------------------------------------------------------------------------------------


def splade(folder: Path, **form: str) -> Path:
    """The fixture `bert-splade`, whose values are known, with a SpladePooling module."""
    shutil.copytree(MODELS / "bert-splade", folder, dirs_exist_ok=True)
    entries = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
    write(folder / "modules.json", [{"path": path, "type": ST + type_} for path, type_ in entries])
    write(folder / "1_SpladePooling" / "config.json", form)
    return folder


@on_each_engine
def test_sum_over_the_tokens(engine: str) -> None:
    cases = expected(CASES / "st-splade-sum")["texts"]
    with opened(CASES / "st-splade-sum", engine) as model:
        found = sparse_of(model, [case["text"] for case in cases])
        wanted = np.stack([dense(case["sparse"], model.info.dimensions) for case in cases])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * wanted.max())


@on_each_engine
def test_activations(engine: str, tmp_path: Path) -> None:
    """The largest of ln(1 + y) is ln(1 + the largest y); of one token the sum is the largest."""
    cases = [case for case in expected(MODELS / "bert-splade")["texts"] if not case["truncated"]]
    texts = [case["text"] for case in cases]
    with opened(splade(tmp_path / "max"), engine) as model:
        plain = sparse_of(model, texts)
        wanted = np.stack([dense(case["sparse"], model.info.dimensions) for case in cases])
        [one] = model.embed([[5]], normalize=False)
    np.testing.assert_allclose(plain, wanted, rtol=0, atol=1e-4)
    with opened(splade(tmp_path / "log1p", activation_function="log1p_relu"), engine) as model:
        np.testing.assert_allclose(sparse_of(model, texts), np.log1p(wanted), rtol=0, atol=1e-4)
    both = splade(tmp_path / "sum", pooling_strategy="sum", activation_function="log1p_relu")
    with opened(both, engine) as model:
        np.testing.assert_allclose(model.embed([[5]], normalize=False)[0], np.log1p(one), rtol=0, atol=1e-5)
        assert (sparse_of(model, texts) >= np.log1p(wanted) - 1e-4).all()


# --- several sides ----------------------------------------------------------------------------------------------------


def write_router(folder: Path, default: str | None = "document", **routes: list[tuple[str, str]]) -> None:
    """routes: the folder and the type of each module."""
    write(folder / "modules.json", [{"path": "", "type": "sentence_transformers.models.Router"}])
    types = {path: type_ for modules in routes.values() for path, type_ in modules}
    structure = {name: [path for path, _ in modules] for name, modules in routes.items()}
    parameters = {"default_route": default, "allow_empty_key": True}
    write(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})


@pytest.fixture
def inference_free(tmp_path: Path) -> Path:
    """SPLADE for documents, in the root as OpenSearch's models have it, and a table of weights for queries."""
    folder = splade(tmp_path / "model")
    (folder / "1_SpladePooling").rename(folder / "document_1_SpladePooling")
    query = folder / "query_0_SparseStaticEmbedding"
    query.mkdir()
    shutil.copy(folder / "tokenizer.json", query)
    write(query / "config.json", {"frozen": True})
    write(query / "tokenizer_config.json", {"model_max_length": 6})
    save_file({"weight": np.arange(900, dtype=np.float32) / 100}, query / "model.safetensors")
    document = [("", ST + "MLMTransformer"), ("document_1_SpladePooling", ST + "SpladePooling")]
    write_router(folder, query=[(query.name, ST + "SparseStaticEmbedding")], document=document)
    return folder


@on_each_engine
def test_queries_without_inference(engine: str, inference_free: Path) -> None:
    """Each token's weight once, without special tokens, of so many tokens as the tokenizer is made for."""
    cases = [case for case in expected(MODELS / "bert-splade")["texts"] if not case["truncated"]]
    texts = [case["text"] for case in cases]
    with opened(inference_free, engine) as model:
        assert model.info.sides == ("query", "document")
        wanted = np.stack([dense(case["sparse"], model.info.dimensions) for case in cases])
        for options in (PLAIN, DOCUMENT):
            np.testing.assert_allclose(sparse_of(model, texts, options), wanted, rtol=0, atol=1e-4)
        for row, case in zip(sparse_of(model, texts, QUERY), cases, strict=True):
            ids = case["input_ids"][1:-1][:6]
            assert set(np.flatnonzero(row)) == {id_ for id_ in ids if id_}
            assert all(row[id_] == np.float32(id_ / 100) for id_ in ids)
        with pytest.raises(InputError, match="`neither`"):
            model.embed_sparse(texts, options=EncodeOptions(prompt_name="neither"))


@pytest.fixture
def asymmetric(tmp_path: Path) -> Path:
    """Two encoders, each in its folder: `bert-cls` for queries, `bert` for documents."""
    folder = tmp_path / "model"
    for side, name in (("query", "bert-cls"), ("document", "bert")):
        shutil.copytree(MODELS / name, folder / f"{side}_0_Transformer")
        write(folder / f"{side}_1_Pooling" / "config.json", {"pooling_mode": "cls" if side == "query" else "mean"})
    kinds = ("0_Transformer", "1_Pooling")
    routes = {
        side: [(f"{side}_{kind}", f"sentence_transformers.models.{kind[2:]}") for kind in kinds]
        for side in ("query", "document")
    }
    write_router(folder, "query", **routes)
    return folder


@on_each_engine
def test_two_encoders(engine: str, asymmetric: Path) -> None:
    texts = [case["text"] for case in expected(MODELS / "bert")["texts"]]
    alone = {}
    for side, name in (("query", "bert-cls"), ("document", "bert")):
        with load(MODELS / name, dtype="float32", engine=engine, threads=2, streams=1) as model:
            alone[side] = model.embed(texts)
    assert not np.allclose(alone["query"], alone["document"], atol=0.1)
    with opened(asymmetric, engine) as model:
        same = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        same(model.embed(texts, options=QUERY), alone["query"])
        same(model.embed(texts, options=DOCUMENT), alone["document"])
        same(model.embed(texts), alone["query"])
        with pytest.raises(ModelTypeError, match="several sides"):
            model.embed_all(texts)
    with load(asymmetric, dtype="float32", engine=engine, default_prompt_name="document") as model:
        same(model.embed(texts), alone["document"])


@pytest.fixture
def sides(inference_free: Path) -> Iterator[Any]:
    """An engine with two sides, and its tokenizer."""
    from text_embeddings_inference.loading.load import load_parts
    from text_embeddings_inference.loading.open import open_model
    from text_embeddings_inference.settings import Settings

    settings = Settings.of(model_id=str(inference_free), dtype="float32", threads=2, streams=1)
    with open_model(settings) as opened:
        parts = load_parts(opened)
        yield parts
        parts.engine.close()


def test_sides_in_one_batch(sides: Any) -> None:
    """Texts of both sides come together in a batch, in any order."""
    texts = ["Hello", "What is Deep Learning?", "a b c d e"]
    both = [sides.tokenizer.encode(texts, options) for options in (QUERY, DOCUMENT)]
    mixed = [encoding for pair in zip(*both, strict=True) for encoding in pair]

    def run(encodings: list[Any]) -> Float32Array:
        pooled: Float32Array = sides.engine.run(sides.engine.arrange(encodings)).pooled
        return pooled

    np.testing.assert_allclose(run(mixed), np.concatenate([run([one]) for one in mixed]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(run(mixed)[::2], run(both[0]), rtol=0, atol=1e-5)
