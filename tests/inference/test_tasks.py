"""Which kind of model refuses which task, and what each is made for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import fake_info
from text_embeddings_inference.errors import DimensionsError, ModelTypeError, RequestError
from text_embeddings_inference.inference import tasks
from text_embeddings_inference.inference.tasks import Task
from text_embeddings_inference.types import Kind, ModelInfo, Pooling, TokenColumns

MODELS = {
    "dense": fake_info(),
    "splade": fake_info(pooling=Pooling.SPLADE),
    "lexical": fake_info(columns=TokenColumns(weights=True, vectors=2)),
    "late": fake_info(columns=TokenColumns(vectors=4, hidden=False)),
    "classifier": fake_info(Kind.CLASSIFIER),
    "reranker": fake_info(Kind.RERANKER),
}
MADE_FOR = {
    "dense": "embed",
    "splade": "embed_sparse",
    "lexical": "embed",
    "late": "embed_all",
    "classifier": "predict",
    "reranker": "rerank",
}
REFUSALS: dict[str, dict[str, str]] = {
    "embed": {
        "splade": tasks.NO_NORMALIZE,
        "late": tasks.NO_POOLED,
        "classifier": tasks.NOT_EMBEDDING,
        "reranker": tasks.NOT_EMBEDDING,
    },
    "embed as it is": {
        "late": tasks.NO_POOLED,
        "classifier": tasks.NOT_EMBEDDING,
        "reranker": tasks.NOT_EMBEDDING,
    },
    "embed_all": {
        "splade": tasks.NO_TOKENS,
        "classifier": tasks.NOT_EMBEDDING,
        "reranker": tasks.NOT_EMBEDDING,
    },
    "multi_vector": {
        "dense": tasks.NO_VECTORS,
        "splade": tasks.NO_TOKENS,
        "classifier": tasks.NO_VECTORS,
        "reranker": tasks.NO_VECTORS,
    },
    "embed_sparse": dict.fromkeys(("dense", "late", "classifier", "reranker"), tasks.NOT_SPLADE),
    "similarity": {
        "late": tasks.NO_POOLED,
        "classifier": tasks.NOT_EMBEDDING,
        "reranker": tasks.NOT_EMBEDDING,
    },
    "predict": dict.fromkeys(("dense", "splade", "lexical", "late"), tasks.NOT_CLASSIFIER),
    "rerank": dict.fromkeys(("dense", "splade", "lexical", "classifier"), tasks.NOT_RERANKER),
}


def task(name: str, info: ModelInfo) -> Task[Any]:
    made: dict[str, Task[Any]] = {
        "embed": tasks.embed(),
        "embed as it is": tasks.embed(normalize=False),
        "embed_all": tasks.embed_all(info),
        "multi_vector": tasks.embed_all(info, multi_vector=True),
        "embed_sparse": tasks.embed_sparse(info, special=()),
        "similarity": tasks.similarity(),
        "predict": tasks.predict(info),
        "rerank": tasks.rerank(),
    }
    return made[name]


def message(error: RequestError | None) -> str | None:
    return None if error is None else str(error).removeprefix("Backend error: ")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, model: str) -> None:
    info = MODELS[model]
    assert message(task(name, info).refuses(info)) == REFUSALS[name].get(model)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_does_what_it_is_made_for(model: str) -> None:
    info, name = MODELS[model], MADE_FOR[model]
    assert tasks.default_task(info) == name
    assert task(name, info).refuses(info) is None


def test_a_refusal_stands_for_all_inputs() -> None:
    with pytest.raises(ModelTypeError) as caught:
        tasks.rerank().check(MODELS["dense"], 3)
    assert caught.value.inputs == 3
    with pytest.raises(DimensionsError, match="should be smaller than the maximum") as too_wide:
        tasks.embed(dimensions=5).check_width(MODELS["dense"], 2)
    assert too_wide.value.inputs == 2
    for fine in (None, 1, 4):
        tasks.embed(dimensions=fine).check(MODELS["dense"], 1)
        tasks.embed(dimensions=fine).check_width(MODELS["dense"], 1)
    with pytest.raises(DimensionsError, match="should be positive"):
        tasks.embed(dimensions=0).check(MODELS["dense"], 1)
