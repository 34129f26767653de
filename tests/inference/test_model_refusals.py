"""What a model refuses on each route, in which order, and how the refusal is counted."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from serving import run, serving, started

from tests.fakes import MAX_INPUT_LENGTH, OPTIONS, fake_info, fake_tokenizer
from text_embeddings_inference.errors import (
    BatchSizeError,
    DimensionsError,
    EmptyBatchError,
    EmptyInputError,
    InferenceError,
    InputError,
    ModelTypeError,
    OverloadedError,
    RequestError,
)
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import EncodeOptions, Kind, ModelInfo, Pooling

EMBEDDING = fake_info()
SPLADE = fake_info(pooling=Pooling.SPLADE)
CLASSIFIER = fake_info(Kind.CLASSIFIER)
RERANKER = fake_info(Kind.RERANKER)
STRICT = EncodeOptions(truncate=False)
UNKNOWN_PROMPT = EncodeOptions(truncate=False, prompt_name="x")
TOO_MANY_TOKENS = "1 " * (MAX_INPUT_LENGTH + 1)
TOO_MANY_CHARACTERS = "1" * (MAX_INPUT_LENGTH * 250 + 1)
MODEL_TYPE = "Backend error: "
INVALID = "Input validation error: "


def test_overloaded_exactly_when_all_permits_are_taken() -> None:
    async def test() -> None:
        async with serving(limits=Limits(max_concurrent_requests=4)) as served:
            model = served.model
            served.engine.hold()
            first = await started(model.embed(["1", "2", "3"], OPTIONS))
            with pytest.raises(OverloadedError):
                await model.embed(["4", "5"], OPTIONS)
            second = await started(model.embed(["4"], OPTIONS))
            for refused in (
                model.embed(["5"], OPTIONS),
                model.embed_all(["5"], OPTIONS),
                model.similarity("5", ["6"], OPTIONS),
            ):
                with pytest.raises(OverloadedError):
                    await refused
            assert [len(tokens) for tokens in await model.tokenize(["1 2", "3"])] == [2, 1], "it needs none"
            assert await model.decode([[1]]) == ["1"]
            served.engine.let()
            await first
            await second
            await model.embed(["1", "2", "3", "4"], OPTIONS)
            assert served.failures() == {"overloaded": 5}, "one for each input there was no permit for"
            assert served.metrics("te_embed_count") == {"te_embed_count": 8}

    run(test())


# --- refusals ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """A call, the error it must get, and what is added to te_request_failure."""

    info: ModelInfo
    call: Callable[[Model], Coroutine[Any, Any, object]]
    error: type[RequestError]
    message: str
    failures: dict[str, int]


NO_ROOM = Limits(max_concurrent_requests=0, max_client_batch_size=4)
ROOM = Limits(max_client_batch_size=4)

OF_TWO_REASONS_THE_EARLIER = {
    "batch size, permits": Refusal(
        SPLADE,
        lambda model: model.embed(["1"] * 5, OPTIONS),
        *(BatchSizeError, "batch size 5 > maximum allowed batch size 4", {"batch_size": 1}),
    ),
    "permits, splade": Refusal(
        SPLADE,
        lambda model: model.embed(["1"], OPTIONS),
        *(OverloadedError, "Model is overloaded", {"overloaded": 1}),
    ),
    "splade, dimensions of 0": Refusal(
        SPLADE,
        lambda model: model.embed(["1"] * 2, OPTIONS, dimensions=0),
        *(ModelTypeError, f"{MODEL_TYPE}`normalize` is not available for SPLADE models", {"model_type": 2}),
    ),
    "splade, empty": Refusal(
        SPLADE,
        lambda model: model.embed_all(["", "1"], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}`embed_all` is not available for SPLADE models", {"model_type": 2}),
    ),
    "dimensions of 0, kind": Refusal(
        CLASSIFIER,
        lambda model: model.embed(["1"] * 3, OPTIONS, dimensions=0),
        *(DimensionsError, f"{INVALID}`dimensions` should be positive", {"validation": 3}),
    ),
    "kind, empty": Refusal(
        CLASSIFIER,
        lambda model: model.embed(["", "1"], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}Model is not an embedding model", {"model_type": 2}),
    ),
    "empty, prompt": Refusal(
        EMBEDDING,
        lambda model: model.embed([""], UNKNOWN_PROMPT),
        *(EmptyInputError, f"{INVALID}`inputs` cannot be empty", {"tokenization": 1}),
    ),
    "prompt, characters": Refusal(
        EMBEDDING,
        lambda model: model.embed([TOO_MANY_CHARACTERS], UNKNOWN_PROMPT),
        *(InputError, f"{INVALID}`default-prompt-name` is set to `x` but it was not found", {"tokenization": 1}),
    ),
    "characters, tokens": Refusal(
        EMBEDDING,
        lambda model: model.embed(["1 " * 2001], STRICT),
        *(InputError, f"{INVALID}`inputs` must have less than 4000 characters. Given: 4002", {"tokenization": 1}),
    ),
    "characters, pair with a prompt": Refusal(
        EMBEDDING,
        lambda model: model.embed([(TOO_MANY_CHARACTERS, "1")], EncodeOptions(truncate=False, prompt_name="query")),
        *(InputError, f"{INVALID}`inputs` must have less than 4000 characters. Given: 4002", {"tokenization": 1}),
    ),
    "pair with a prompt, tokens": Refusal(
        EMBEDDING,
        lambda model: model.embed([(TOO_MANY_TOKENS, "1")], EncodeOptions(truncate=False, prompt_name="query")),
        *(InputError, f"{INVALID}`prompt_name` cannot be set with dual inputs", {"tokenization": 1}),
    ),
    "tokens, dimensions too large": Refusal(
        EMBEDDING,
        lambda model: model.embed([TOO_MANY_TOKENS], STRICT, dimensions=5),
        *(InputError, f"{INVALID}`inputs` must have less than 16 tokens. Given: 17", {"tokenization": 1}),
    ),
    "dimensions too large": Refusal(
        EMBEDDING,
        lambda model: model.embed(["1", "2"], OPTIONS, dimensions=5),
        DimensionsError,
        f"{INVALID}`dimensions` should be smaller than the maximum embedding dimension.",
        {"validation": 2},
    ),
    "the first of several inputs": Refusal(
        EMBEDDING,
        lambda model: model.embed(["1", TOO_MANY_TOKENS, "", "2"], STRICT),
        *(InputError, f"{INVALID}`inputs` must have less than 16 tokens", {"tokenization": 2}),
    ),
}

OTHER_ROUTES = {
    "embed nothing": Refusal(
        EMBEDDING,
        lambda model: model.embed([], OPTIONS),
        *(EmptyBatchError, "`inputs` cannot be empty", {"validation": 1}),
    ),
    "embed_all on a reranker": Refusal(
        RERANKER,
        lambda model: model.embed_all(["1"], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}Model is not an embedding model", {"model_type": 1}),
    ),
    "embed_sparse on a dense model": Refusal(
        EMBEDDING,
        lambda model: model.embed_sparse(["1", "2"], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}Model is not an embedding model with SPLADE pooling", {"model_type": 2}),
    ),
    "embed_sparse on a classifier": Refusal(
        CLASSIFIER,
        lambda model: model.embed_sparse([""], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}Model is not an embedding model with SPLADE pooling", {"model_type": 1}),
    ),
    "similarity with nothing": Refusal(
        CLASSIFIER,
        lambda model: model.similarity("1", [], OPTIONS),
        *(EmptyBatchError, "`inputs.sentences` cannot be empty", {"validation": 1}),
    ),
    "similarity counts the source": Refusal(
        CLASSIFIER,
        lambda model: model.similarity("1", ["2"] * 4, OPTIONS),
        *(BatchSizeError, "batch size 5 > maximum allowed batch size 4", {"batch_size": 1}),
    ),
    "similarity on a classifier": Refusal(
        CLASSIFIER,
        lambda model: model.similarity("", ["2"], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}Model is not an embedding model", {"model_type": 2}),
    ),
    "predict on an embedding model": Refusal(
        EMBEDDING,
        lambda model: model.predict(["", "1"], OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}Model is not a classifier model", {"model_type": 2}),
    ),
    "predict too many": Refusal(
        EMBEDDING,
        lambda model: model.predict(["1"] * 5, OPTIONS),
        *(BatchSizeError, "batch size 5 > maximum allowed batch size 4", {"batch_size": 1}),
    ),
    "predict a pair of nothing": Refusal(
        CLASSIFIER,
        lambda model: model.predict([("", "")], OPTIONS),
        *(EmptyInputError, f"{INVALID}`inputs` cannot be empty", {"tokenization": 1}),
    ),
    "rerank nothing, on the wrong model": Refusal(
        CLASSIFIER,
        lambda model: model.rerank("1", [], OPTIONS),
        *(EmptyBatchError, "`texts` cannot be empty", {"validation": 1}),
    ),
    "rerank too many on the wrong model": Refusal(
        CLASSIFIER,
        lambda model: model.rerank("1", ["2"] * 5, OPTIONS),
        *(ModelTypeError, f"{MODEL_TYPE}model is not a re-ranker model", {"model_type": 1}),
    ),
    "rerank too many": Refusal(
        RERANKER,
        lambda model: model.rerank("1", ["2"] * 5, OPTIONS),
        *(BatchSizeError, "batch size 5 > maximum allowed batch size 4", {"batch_size": 1}),
    ),
    "tokenize nothing": Refusal(
        EMBEDDING,
        lambda model: model.tokenize([]),
        *(EmptyBatchError, "`inputs` cannot be empty", {"validation": 1}),
    ),
    "tokenize too many": Refusal(
        EMBEDDING,
        lambda model: model.tokenize(["1"] * 5),
        *(BatchSizeError, "batch size 5 > maximum allowed batch size 4", {"batch_size": 1}),
    ),
    "tokenize an empty text": Refusal(
        EMBEDDING,
        lambda model: model.tokenize(["1", "", ""]),
        *(EmptyInputError, f"{INVALID}`inputs` cannot be empty", {"tokenization": 2}),
    ),
    "tokenize too many characters": Refusal(
        EMBEDDING,
        lambda model: model.tokenize([TOO_MANY_CHARACTERS]),
        *(InputError, f"{INVALID}`inputs` must have less than 4000 characters. Given: 4001", {"tokenization": 1}),
    ),
    "decode too many": Refusal(
        EMBEDDING,
        lambda model: model.decode([[1]] * 5),
        *(BatchSizeError, "batch size 5 > maximum allowed batch size 4", {"batch_size": 1}),
    ),
    "decode an empty list": Refusal(
        EMBEDDING,
        lambda model: model.decode([[1], []]),
        *(EmptyInputError, f"{INVALID}`input_ids` cannot be empty", {"tokenization": 1}),
    ),
}

REFUSALS = OF_TWO_REASONS_THE_EARLIER | OTHER_ROUTES


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str) -> None:
    """The error of the first check that fails, its count, no batch, and all permits back."""
    refusal = REFUSALS[name]

    async def test() -> None:
        async with serving(info=refusal.info, limits=NO_ROOM if "permits" in name else ROOM) as served:
            with pytest.raises(RequestError) as caught:
                await refusal.call(served.model)
            assert type(caught.value) is refusal.error
            assert str(caught.value).startswith(refusal.message)
            assert served.failures() == refusal.failures
            assert served.engine.batches == []
            assert served.model.permits.free == served.model.limits.max_concurrent_requests

    run(test())


def test_pairs_with_a_default_prompt_are_refused() -> None:
    async def test() -> None:
        async with serving(info=RERANKER, tokenizer=fake_tokenizer(default_prompt="1 ")) as served:
            with pytest.raises(InputError, match="`prompt_name` cannot be set with dual inputs"):
                await served.model.rerank("1", ["2", "3"], OPTIONS)
            assert served.failures() == {"tokenization": 2}

    run(test())


# --- what is counted --------------------------------------------------------------------------------------------------


def test_nothing_is_counted_as_begun_that_was_refused_before_tokenizing() -> None:
    async def test() -> None:
        async with serving(info=CLASSIFIER) as served:
            for call in (served.model.embed, served.model.embed_all, served.model.embed_sparse):
                with pytest.raises(ModelTypeError):
                    await call(["1"], OPTIONS)
            assert served.metrics() == {'te_request_failure{err="model_type"}': 3}

    run(test())


@pytest.mark.parametrize("route", ["embed", "embed_all", "embed_sparse"])
def test_counts_of_an_embedding(route: str) -> None:
    async def test() -> None:
        info = SPLADE if route == "embed_sparse" else EMBEDDING
        async with serving(info=info, clock=lambda: 0.0) as served:
            await getattr(served.model, route)(["1", "2 3 4"], OPTIONS)
            parts = ("", "_tokenization", "_queue", "_inference")
            assert served.metrics() == {
                "te_request_input_length_sum": 4,
                "te_request_input_length_count": 2,
                "te_embed_count": 2,
                "te_embed_success": 2,
                **{f"te_embed{part}_duration_{end}": n for part in parts for end, n in (("sum", 0), ("count", 2))},
                "te_queue_size": 0,
                "te_batch_next_size_sum": 2,
                "te_batch_next_size_count": 1,
                "te_batch_next_tokens_sum": 4,
                "te_batch_next_tokens_count": 1,
                "tei_batch_tokens_total": 4,
                "tei_batch_computed_tokens_total": 6,
                "tei_batch_budget_tokens_total": 64,
                "tei_engine_busy_seconds_total": 0,
                "tei_queue_age_seconds": 0,
            }

    run(test())


def test_counts_of_predictions() -> None:
    async def test() -> None:
        async with serving(info=RERANKER) as served:
            await served.model.predict(["1"], OPTIONS)
            await served.model.rerank("1", ["2", "3"], OPTIONS)
            expected = {"te_predict_count": 3, "te_predict_success": 3, "te_predict_queue_duration_count": 3}
            assert served.metrics(*expected) == expected
            assert not any(name.startswith("te_embed") for name in served.metrics())

    run(test())


def test_inputs_that_are_tokenized_but_not_answered() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.bad_ids = {13}
            with pytest.raises(InferenceError):
                await served.model.embed(["13", "1", "13 13"], OPTIONS)
            assert served.failures() == {"inference": 2}
            expected = {"te_embed_count": 3, "te_request_input_length_count": 3}
            assert served.metrics(*expected, "te_embed_success") == expected

    run(test())
