"""The operations and the dialect of text-embeddings-inference."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ...errors import BatchSizeError
from ...inference import tasks
from ...inference.results import Prediction, Rank, Sparse
from ...types import EncodeOptions, Float32Array, Token
from ..accounting import Served, Timed, usage_headers
from ..http.errors import Failure
from ..http.response import Reply
from . import responses
from .operation import Call, Dialect, Operation
from .requests import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    EmbedSparseRequest,
    Inputs,
    PredictRequest,
    RerankRequest,
    SimilarityParameters,
    SimilarityRequest,
    TokenizeRequest,
    embed_inputs,
    id_lists,
    predict_inputs,
)
from .responses import Number, PredictionResponse, RankResponse, SparseValue, Vector

Optioned: TypeAlias = (
    EmbedRequest | EmbedAllRequest | EmbedSparseRequest | PredictRequest | RerankRequest | SimilarityParameters
)


class ErrorResponse(Struct):
    """What went wrong."""

    error: Annotated[str, Meta(examples=["Model is overloaded"])]
    error_type: Annotated[str, Meta(examples=["Overloaded"])]


def error(failure: Failure) -> Reply:
    """The answer that tells of a failure."""
    return failure.reply(ErrorResponse(failure.message, failure.error_type))


TEI = Dialect(error, ErrorResponse, usage_headers)


def embed(served: Served, body: EmbedRequest) -> Call:
    """Gives one vector for each input."""
    inputs, how = embedded(served, body.inputs), _options(served, body)
    answer = partial(served.model.embed, inputs.items, how, normalize=body.normalize, dimensions=body.dimensions)
    return Call(answer, inputs.place, inputs.method)


def embed_all(served: Served, body: EmbedAllRequest) -> Call:
    """Gives one vector for each token of each input."""
    inputs, how = embedded(served, body.inputs), _options(served, body)
    answer = partial(served.model.embed_all, inputs.items, how, multi_vector=body.multi_vector)
    return Call(answer, inputs.place, inputs.method)


def embed_sparse(served: Served, body: EmbedSparseRequest) -> Call:
    """Gives one sparse vector for each input (SPLADE, and the lexical weights of bge-m3)."""
    inputs = embedded(served, body.inputs)
    answer = partial(served.model.embed_sparse, inputs.items, _options(served, body))
    return Call(answer, inputs.place, inputs.method)


def predict(served: Served, body: PredictRequest) -> Call:
    """Gives the scores of all classes, best first."""
    inputs, how = admitted(served, predict_inputs(body.inputs)), _options(served, body)
    answer = partial(served.model.predict, inputs.items, how, raw_scores=body.raw_scores)
    return Call(answer, inputs.place, inputs.method)


def rerank(served: Served, body: RerankRequest) -> Call:
    """Gives the scores of the texts for the query, best first."""
    how = _options(served, body)
    admitted(served, Inputs(body.texts, "batch", "texts"))
    answer = partial(served.model.rerank, body.query, body.texts, how, raw_scores=body.raw_scores)
    counted = bool(body.texts) and tasks.rerank().refuses(served.model.info) is None
    return Call(answer, partial(_rerank_place, len(body.texts)), "batch" if counted else None)


def _rerank_place(texts: int, index: int) -> str:
    """Of a text, or of the query, which models for late interaction run after them."""
    return f"texts[{index}]" if index < texts else "query"


def similarity(served: Served, body: SimilarityRequest) -> Call:
    """Gives the cosine of each sentence with the source sentence."""
    source, sentences = body.inputs.source_sentence, body.inputs.sentences
    how = _options(served, body.parameters or SimilarityParameters())
    counted = 0 < len(sentences) < served.model.limits.max_client_batch_size
    answer = partial(served.model.similarity, source, sentences, how)
    return Call(answer, _similarity_place, "batch" if counted else None)


def _similarity_place(index: int) -> str:
    return f"inputs.sentences[{index - 1}]" if index else "inputs.source_sentence"


def tokenize(served: Served, body: TokenizeRequest) -> Call:
    """Gives the tokens of each text."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    inputs = admitted(served, Inputs(texts, "batch" if texts is body.inputs else "single", "inputs"))
    special, prompt = body.add_special_tokens, body.prompt_name
    answer = partial(served.model.tokenize, texts, add_special_tokens=special, prompt_name=prompt)
    return Call(answer, inputs.place)


def decode(served: Served, body: DecodeRequest) -> Call:
    """Gives the text of each list of token ids."""
    batch = id_lists(body.ids)
    inputs = admitted(served, Inputs(batch, "batch" if batch is body.ids else "single", "ids"))
    answer = partial(served.model.decode, batch, skip_special_tokens=body.skip_special_tokens)
    return Call(answer, inputs.place)


def embedded(served: Served, value: str | list[Any], field: str = "inputs") -> Inputs:
    """What is to be embedded. Raises InputError and BatchSizeError."""
    return admitted(served, embed_inputs(value, vocabulary=served.model.info.vocabulary, field=field))


def admitted(served: Served, inputs: Inputs) -> Inputs:
    """Raises BatchSizeError for every batch, even of one input, where `--max-client-batch-size` is 0."""
    if inputs.method == "batch" and served.model.limits.max_client_batch_size == 0:
        raise BatchSizeError(len(inputs.items), 0)
    return inputs


def _options(served: Served, body: Optioned) -> EncodeOptions:
    """How the inputs of a request become tokens, the server's defaults filled in."""
    truncate = served.settings.model.auto_truncate if body.truncate is None else body.truncate
    direction: Literal["left", "right"] = "left" if body.truncation_direction in ("Left", "left") else "right"
    return EncodeOptions(truncate, direction, getattr(body, "prompt_name", None), getattr(body, "instruction", None))


# --- how answers are written ------------------------------------------------------------------------------------------


async def _vectors(_: Served, __: EmbedRequest, done: Timed[list[Float32Array]]) -> list[bytes]:
    return await responses.vectors(done.value)


async def _token_vectors(_: Served, __: EmbedAllRequest, done: Timed[list[Float32Array]]) -> list[bytes]:
    return await responses.token_vectors(done.value)


async def _sparse(_: Served, __: EmbedSparseRequest, done: Timed[list[Sparse]]) -> list[bytes]:
    return await responses.sparse(done.value)


async def _predictions(_: Served, body: PredictRequest, done: Timed[list[list[Prediction]]]) -> list[bytes]:
    return [responses.predictions(done.value, single=predict_inputs(body.inputs).method == "single")]


async def _ranks(_: Served, body: RerankRequest, done: Timed[list[Rank]]) -> list[bytes]:
    return [responses.ranks(done.value, body.texts if body.return_text else None)]


async def _numbers(_: Served, __: SimilarityRequest, done: Timed[list[float]]) -> list[bytes]:
    return [responses.numbers(np.array(done.value, np.float32))]


async def _tokens(_: Served, __: TokenizeRequest, texts: list[list[Token]]) -> list[bytes]:
    return await responses.tokens(texts)


async def _texts(_: Served, __: DecodeRequest, texts: list[str]) -> list[bytes]:
    return [msgspec.json.encode(texts)]


EMBED = Operation(EmbedRequest, embed, _vectors, list[Vector], size=responses.size)
EMBED_ALL = Operation(EmbedAllRequest, embed_all, _token_vectors, list[list[Vector]], size=responses.size)
EMBED_SPARSE = Operation(
    EmbedSparseRequest, embed_sparse, _sparse, list[list[SparseValue]], size=responses.size_of_sparse
)
PREDICT = Operation(PredictRequest, predict, _predictions, list[PredictionResponse | list[PredictionResponse]])
RERANK = Operation(RerankRequest, rerank, _ranks, list[RankResponse])
SIMILARITY = Operation(SimilarityRequest, similarity, _numbers, list[Number])
TOKENIZE = Operation(TokenizeRequest, tokenize, _tokens, list[list[Token]], size=responses.size_of_tokens, timed=False)
DECODE = Operation(DecodeRequest, decode, _texts, list[str], timed=False)
