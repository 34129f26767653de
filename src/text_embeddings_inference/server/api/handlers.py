"""What the routes do: a typed request -> one call into `Model` -> bytes.

How a request is counted, timed and logged is said once, in `accounting`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from ...errors import BatchSizeError, UnhealthyError
from ...inference.model import Model
from ...settings import Settings
from ...types import EncodeOptions, Kind
from ..accounting import Accounting, usage_headers
from ..http.response import Reply
from . import openai, responses
from .info import Info
from .openai import OpenAIRequest
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

Optioned: TypeAlias = (
    EmbedRequest | EmbedAllRequest | EmbedSparseRequest | PredictRequest | RerankRequest | SimilarityParameters
)

logger = logging.getLogger(__name__)


class Handlers:
    """The routes of one model. All of them raise RequestError."""

    def __init__(self, model: Model, settings: Settings, clock: Callable[[], float] = time.perf_counter) -> None:
        self.model = model
        self._settings = settings
        self._accounting = Accounting(model, clock)

    async def embed(self, request: EmbedRequest) -> Reply:
        """Gives one vector for each input."""
        items, method = self._inputs(request.inputs)
        done = await self._accounting.timed(
            "embed",
            method,
            self.model.embed(items, self._options(request), normalize=request.normalize, dimensions=request.dimensions),
        )
        return Reply.json(await responses.vectors(done.value), headers=usage_headers(done))

    async def embed_all(self, request: EmbedAllRequest) -> Reply:
        """Gives one vector for each token of each input."""
        items, method = self._inputs(request.inputs)
        call = self.model.embed_all(items, self._options(request), multi_vector=request.multi_vector)
        done = await self._accounting.timed("embed_all", method, call)
        return Reply.json(await responses.token_vectors(done.value), headers=usage_headers(done))

    async def embed_sparse(self, request: EmbedSparseRequest) -> Reply:
        """Gives one sparse vector for each input (SPLADE, and the lexical weights of bge-m3)."""
        items, method = self._inputs(request.inputs)
        done = await self._accounting.timed(
            "embed_sparse", method, self.model.embed_sparse(items, self._options(request))
        )
        return Reply.json(await responses.sparse(done.value), headers=usage_headers(done))

    async def openai_embed(self, request: OpenAIRequest) -> Reply:
        """Gives one vector for each input, as the OpenAI API does."""
        name = self.model.info.served_name
        if request.model not in (None, name):
            logger.warning("A request names another model than `%s`, which answers it", name)
        items, method = self._inputs(request.input, "input")
        options = EncodeOptions(truncate=self._settings.model.auto_truncate)
        done = await self._accounting.timed(
            "openai_embed", method, self.model.embed(items, options, dimensions=request.dimensions)
        )
        body = await openai.embeddings(done.value, done.usage.tokens, name, request.encoding_format)
        return Reply.json(body, headers=usage_headers(done))

    async def predict(self, request: PredictRequest) -> Reply:
        """Gives the scores of all classes, best first."""
        items, method = self._let_in(predict_inputs(request.inputs))
        call = self.model.predict(items, self._options(request), raw_scores=request.raw_scores)
        done = await self._accounting.timed("predict", method, call)
        return Reply.json([responses.predictions(done.value, single=method == "single")], headers=usage_headers(done))

    async def rerank(self, request: RerankRequest) -> Reply:
        """Gives the scores of the texts for the query, best first."""
        self._let_in(Inputs(request.texts, "batch"))
        call = self.model.rerank(request.query, request.texts, self._options(request), raw_scores=request.raw_scores)
        counted = bool(request.texts) and self.model.info.kind is Kind.RERANKER
        done = await self._accounting.timed("rerank", "batch" if counted else None, call)
        texts = request.texts if request.return_text else None
        return Reply.json([responses.ranks(done.value, texts)], headers=usage_headers(done))

    async def similarity(self, request: SimilarityRequest) -> Reply:
        """Gives the cosine of each sentence with the source sentence."""
        source, sentences = request.inputs.source_sentence, request.inputs.sentences
        call = self.model.similarity(source, sentences, self._options(request.parameters or SimilarityParameters()))
        counted = 0 < len(sentences) < self.model.limits.max_client_batch_size
        done = await self._accounting.timed("similarity", "batch" if counted else None, call)
        return Reply.json([responses.numbers(np.array(done.value, np.float32))], headers=usage_headers(done))

    async def tokenize(self, request: TokenizeRequest) -> Reply:
        """Gives the tokens of each text."""
        texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        self._let_in(Inputs(texts, "batch" if texts is request.inputs else "single"))
        call = self.model.tokenize(
            texts, add_special_tokens=request.add_special_tokens, prompt_name=request.prompt_name
        )
        return Reply.json(await responses.tokens(await self._accounting.logged("tokenize", call)))

    async def decode(self, request: DecodeRequest) -> Reply:
        """Gives the text of each list of token ids."""
        batch = id_lists(request.ids)
        self._let_in(Inputs(batch, "batch" if batch is request.ids else "single"))
        call = self.model.decode(batch, skip_special_tokens=request.skip_special_tokens)
        return Reply.json([msgspec.json.encode(await self._accounting.logged("decode", call))])

    async def get_model_info(self) -> Reply:
        """Tells the model and the limits of the server."""
        return Reply.json([msgspec.json.encode(Info.of(self.model, self._settings))])

    async def health(self) -> Reply:
        """Tells whether the model answers."""
        if not self.model.healthy:
            raise UnhealthyError
        return Reply(200, (), [])

    async def metrics(self) -> Reply:
        """Gives the metrics in the text format of Prometheus."""
        return Reply(200, ((b"content-type", b"text/plain; charset=utf-8"),), [self.model.metrics.render()])

    def _inputs(self, value: str | list[Any], field: str = "inputs") -> Inputs:
        return self._let_in(embed_inputs(value, vocabulary=self.model.info.vocabulary, field=field))

    def _let_in(self, inputs: Inputs) -> Inputs:
        """Raises BatchSizeError for every batch, even of one input, where `--max-client-batch-size` is 0."""
        if inputs.method == "batch" and self.model.limits.max_client_batch_size == 0:
            error = BatchSizeError(len(inputs.items), 0)
            self._accounting.failed(error)
            raise error
        return inputs

    def _options(self, request: Optioned) -> EncodeOptions:
        """How the inputs of a request become tokens, the server's defaults filled in."""
        truncate = self._settings.model.auto_truncate if request.truncate is None else request.truncate
        direction: Literal["left", "right"] = "left" if request.truncation_direction in ("Left", "left") else "right"
        return EncodeOptions(truncate, direction, getattr(request, "prompt_name", None))
