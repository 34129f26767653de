"""What a model answers on each route, from rows of the engine that are known."""

from __future__ import annotations

import numpy as np
import pytest
from serving import run, serving

from tests.fakes import (
    OPTIONS,
    FakeEngine,
    fake_info,
    pooled_vector,
    token_vectors,
)
from text_embeddings_inference.errors import NotANumberError
from text_embeddings_inference.inference.results import Prediction, Rank
from text_embeddings_inference.types import EncodeOptions, Input, Kind, Pooling

SPLADE = fake_info(pooling=Pooling.SPLADE)
CLASSIFIER = fake_info(Kind.CLASSIFIER)
RERANKER = fake_info(Kind.RERANKER)


def test_embed() -> None:
    async def test() -> None:
        async with serving() as served:
            inputs: list[Input] = ["7 8 9", [5, 6], "1", ("2 3", "4")]
            answer = await served.model.embed(inputs, OPTIONS, normalize=False)
            expected = [pooled_vector(ids, 4) for ids in ([7, 8, 9], [5, 6], [1], [2, 3, 4])]
            np.testing.assert_array_equal(answer.value, expected)
            assert (answer.usage.characters, answer.usage.tokens) == (5 + 2 + 1 + 4, 3 + 2 + 1 + 3)

    run(test())


def test_embed_normalizes_what_is_left_of_a_vector() -> None:
    async def test() -> None:
        async with serving() as served:
            [found] = (await served.model.embed(["7 8 9"], OPTIONS, dimensions=2)).value
            expected = pooled_vector([7, 8, 9], 2)
            np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-6)
            [found] = (await served.model.embed(["7 8 9"], OPTIONS)).value
            assert len(found) == 4

    run(test())


def test_embed_zeros_gives_nan() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.zero_ids = {13}
            zero, other = (await served.model.embed(["13", "1"], OPTIONS)).value
            assert np.isnan(zero).all()
            assert np.isfinite(other).all()

    run(test())


def test_embed_puts_prompts_before_and_cuts() -> None:
    async def test() -> None:
        async with serving() as served:
            text = " ".join(str(number) for number in range(30))
            for options in (EncodeOptions(prompt_name="query"), EncodeOptions(direction="left")):
                await served.model.embed([text], options)
            assert [ran.inputs for ran in served.engine.batches] == [[[1, *range(15)]], [list(range(14, 30))]]

    run(test())


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_embed_all(packed: bool) -> None:
    async def test() -> None:
        async with serving(FakeEngine(packed=packed)) as served:
            answer = await served.model.embed_all(["7 8 9", [5]], OPTIONS)
            for found, ids in zip(answer.value, ([7, 8, 9], [5]), strict=True):
                np.testing.assert_array_equal(found, token_vectors(ids, 4))

    run(test())


def test_embed_sparse() -> None:
    async def test() -> None:
        async with serving(info=SPLADE) as served:
            served.engine.zero_ids = {13}
            one, none = (await served.model.embed_sparse(["7 8", "13"], OPTIONS)).value
            assert (one.indices.tolist(), one.values.tolist()) == ([0, 1, 2, 3], pooled_vector([7, 8], 4).tolist())
            assert none.indices.tolist() == []

    run(test())


def test_dense_vectors_of_a_splade_model() -> None:
    async def test() -> None:
        async with serving(info=SPLADE) as served:
            answer = await served.model.embed(["7 8"], OPTIONS, normalize=False)
            np.testing.assert_array_equal(answer.value, [pooled_vector([7, 8], 4)])
            assert (await served.model.similarity("7", ["7"], OPTIONS)).value == [pytest.approx(1)]

    run(test())


def test_similarity() -> None:
    async def test() -> None:
        async with serving() as served:
            served.engine.zero_ids = {13}
            answer = await served.model.similarity("7 8", ["7 8", "1", "13"], OPTIONS)
            x, y = pooled_vector([7, 8], 4), pooled_vector([1], 4)
            expected = [1, float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)), 0]
            assert answer.value == pytest.approx(expected)
            assert (answer.usage.characters, answer.usage.tokens) == (9, 6)

    run(test())


def test_predict() -> None:
    async def test() -> None:
        async with serving(info=CLASSIFIER) as served:
            text, pair = (await served.model.predict(["2", ("1 1", "3")], OPTIONS, raw_scores=True)).value
            assert text == [Prediction("d", 2), Prediction("c", 2), Prediction("b", 2), Prediction("a", 1)]
            assert [prediction.label for prediction in pair] == ["d", "c", "b", "a"]
            [scores] = (await served.model.predict(["2"], OPTIONS)).value
            assert sum(prediction.score for prediction in scores) == pytest.approx(1)

    run(test())


def test_predict_on_a_reranker() -> None:
    async def test() -> None:
        async with serving(info=RERANKER) as served:
            [[prediction]] = (await served.model.predict([("1", "2")], OPTIONS)).value
            assert prediction.label == "LABEL_0"
            assert prediction.score == pytest.approx(1 / (1 + np.exp(-2)))

    run(test())


def test_rerank() -> None:
    async def test() -> None:
        async with serving(info=RERANKER) as served:
            answer = await served.model.rerank("9", ["1", "1 2 3", "4", "5 6"], OPTIONS, raw_scores=True)
            assert answer.value == [Rank(1, 4), Rank(3, 3), Rank(2, 2), Rank(0, 2)]
            assert [9, 1, 2, 3] in [ids for ran in served.engine.batches for ids in ran.inputs]
            [rank] = (await served.model.rerank("9", ["1"], OPTIONS)).value
            assert rank.score == pytest.approx(1 / (1 + np.exp(-2)))

    run(test())


def test_nan_is_no_score_but_may_be_in_a_vector() -> None:
    async def test() -> None:
        for info in (CLASSIFIER, RERANKER):
            async with serving(info=info) as served:
                served.engine.nan_ids = {13}
                with pytest.raises(NotANumberError):
                    await served.model.predict(["1", "13"], OPTIONS)
                assert served.failures() == {}
        async with serving() as served:
            served.engine.nan_ids = {13}
            [vector] = (await served.model.embed(["13"], OPTIONS)).value
            assert np.isnan(vector).all()

    run(test())


def test_tokenize_and_decode() -> None:
    async def test() -> None:
        async with serving() as served:
            first, second = await served.model.tokenize(["5 77", "1"], prompt_name="query")
            assert [(token.id, token.text, token.start) for token in first] == [(1, "1", 0), (5, "5", 2), (77, "77", 4)]
            assert [token.id for token in second] == [1, 1]
            assert await served.model.decode([[5, 77], [1]]) == ["5 77", "1"]
            assert served.metrics() == {}
            assert served.engine.batches == []

    run(test())
