"""What the calls do: a message -> one call into `Model` -> a message. The twins of the HTTP handlers.

Every call is told under which permits it runs: None for a unary call, which takes one or fails; an item of a stream has
waited for its turn. All of them raise RequestError or RefusedError.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np

from ...errors import BatchSizeError, EmptyBatchError, RequestError, presentation
from ...inference import Model
from ...inference.admission import Permit
from ...inference.model import Answer
from ...inference.results import Rank, ranks
from ...inference.tasks import NOT_RERANKER
from ...settings import CONTRACT_VERSION, Settings
from ...types import EncodeOptions, Input, Kind, Timings, Usage
from ..accounting import Accounting, Timed
from ..http.memory_budget import Share
from . import tei_pb2 as tei
from .limits import MAX_RERANKED, MAX_RETURNED
from .statuses import RefusedError
from .streams import Ahead, in_order
from .wire import floats, message

MODEL_TYPES = {
    Kind.EMBEDDING: tei.MODEL_TYPE_EMBEDDING,
    Kind.CLASSIFIER: tei.MODEL_TYPE_CLASSIFIER,
    Kind.RERANKER: tei.MODEL_TYPE_RERANKER,
}
DIRECTIONS: dict[int, Literal["left", "right"]] = {
    tei.TRUNCATION_DIRECTION_RIGHT: "right",
    tei.TRUNCATION_DIRECTION_LEFT: "left",
}
NOT_CLASSIFIER_AT_ALL = "model is not a classifier model"

Encoded: TypeAlias = (
    tei.EmbedRequest
    | tei.EmbedSparseRequest
    | tei.EmbedAllRequest
    | tei.PredictRequest
    | tei.PredictPairRequest
    | tei.RerankRequest
    | tei.RerankStreamRequest
)
"""A request whose texts are tokenized and truncated."""


class Reply(NamedTuple):
    """wire: the serialized message; done: what it cost, for calls that tell in their metadata."""

    wire: bytes
    done: Timed[Any] | None = None


class Calls:
    """The calls to one model."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self._settings = settings
        self._accounting = Accounting(model)

    async def info(self, request: tei.InfoRequest, permit: Permit | None) -> Reply:
        """Tells the model and the limits of the server."""
        info, limits = self.model.info, self.model.limits
        response = tei.InfoResponse(
            version=CONTRACT_VERSION,
            model_id=info.model_id,
            model_sha=info.revision,
            model_dtype=info.dtype,
            model_type=MODEL_TYPES[info.kind],
            max_concurrent_requests=limits.max_concurrent_requests,
            max_input_length=info.max_input_length,
            max_batch_tokens=limits.token_limit,
            max_batch_requests=limits.max_batch_requests or None,
            max_client_batch_size=limits.max_client_batch_size,
            tokenization_workers=self._settings.limits.tokenization_workers,
        )
        return Reply(response.SerializeToString())

    async def embed(self, request: tei.EmbedRequest, permit: Permit | None) -> Reply:
        """Gives one vector."""
        call = self.model.embed(
            [request.inputs],
            _options(request, _optional(request, "prompt_name")),
            normalize=_optional(request, "normalize") is not False,
            dimensions=_optional(request, "dimensions"),
            permit=permit,
        )
        done = await self._accounting.timed("embed", _counted(permit), call)
        return Reply(floats(1, done.value[0]) + _metadata(done), done)

    async def embed_sparse(self, request: tei.EmbedSparseRequest, permit: Permit | None) -> Reply:
        """Gives one sparse vector (SPLADE)."""
        options = _options(request, _optional(request, "prompt_name"))
        call = self.model.embed_sparse([request.inputs], options, permit=permit)
        done = await self._accounting.timed("embed_sparse", _counted(permit), call)
        entries = zip(done.value[0].indices.tolist(), done.value[0].values.tolist(), strict=True)
        response = tei.EmbedSparseResponse(sparse_embeddings=[tei.SparseValue(index=i, value=v) for i, v in entries])
        return Reply(response.SerializeToString() + _metadata(done), done)

    async def embed_all(self, request: tei.EmbedAllRequest, permit: Permit | None) -> Reply:
        """Gives one vector for each token."""
        options = _options(request, _optional(request, "prompt_name"))
        call = self.model.embed_all([request.inputs], options, permit=permit)
        done = await self._accounting.timed("embed_all", _counted(permit), call)
        tokens = b"".join([message(1, floats(1, row)) for row in done.value[0]])
        return Reply(tokens + _metadata(done), done)

    async def predict(self, request: tei.PredictRequest, permit: Permit | None) -> Reply:
        """Gives the scores of all classes, best first."""
        return await self._predict(request.inputs, request, permit)

    async def predict_pair(self, request: tei.PredictPairRequest, permit: Permit | None) -> Reply:
        """The same of one text or of a pair."""
        match request.inputs:
            case [text]:
                return await self._predict(text, request, permit)
            case [text, pair]:
                return await self._predict((text, pair), request, permit)
        problem = f"`inputs` must have a single or two elements. Given: {len(request.inputs)}"
        raise RefusedError("INVALID_ARGUMENT", problem)

    async def _predict(
        self, item: Input, request: tei.PredictRequest | tei.PredictPairRequest, permit: Permit | None
    ) -> Reply:
        call = self.model.predict([item], _options(request), raw_scores=request.raw_scores, permit=permit)
        done = await self._accounting.timed("predict", _counted(permit), call)
        predictions = [tei.Prediction(score=found.score, label=found.label) for found in done.value[0]]
        return Reply(tei.PredictResponse(predictions=predictions).SerializeToString() + _metadata(done), done)

    async def rerank(self, request: tei.RerankRequest, permit: Permit | None) -> Reply:
        """Gives the scores of the texts for the query, best first."""
        texts, options = list(request.texts), _options(request)
        if not texts:
            self._refuse(EmptyBatchError("texts"))
        self._check_reranker()

        async def call() -> Answer[list[Rank]]:
            most = self.model.limits.max_client_batch_size
            if len(texts) > most:
                self._refuse(BatchSizeError(len(texts), most))
            with await self.model.wait_for_permits(len(texts)) as permit:
                return await self.model.rerank(
                    request.query, texts, options, raw_scores=request.raw_scores, permit=permit
                )

        done = await self._accounting.timed("rerank", "batch", call())
        return Reply(_ranks(done, texts if request.return_text else None), done)

    async def rerank_stream(
        self, requests: AsyncIterable[tei.RerankStreamRequest], ahead: Ahead, share: Share
    ) -> Reply:
        """The same of a stream: each item has its own query, the first says what is answered.

        share: of the memory, for texts that are to be given back."""
        self._check_reranker()
        seen = Reranked(share)

        async def score(request: tei.RerankStreamRequest) -> Answer[list[Rank]]:
            options = _options(request)
            with await self.model.wait_for_permits(1) as permit:
                return await self.model.rerank(request.query, [request.text], options, raw_scores=True, permit=permit)

        async def collect() -> Answer[list[Rank]]:
            async for answer in in_order(seen.noting(requests), score, ahead):
                seen.add(answer)
            if not seen.items:
                self._refuse(EmptyBatchError("texts"))
            return seen.answer()

        done = await self._accounting.timed("rerank_stream", "batch", collect())
        return Reply(_ranks(done, seen.texts if seen.return_text else None), done)

    def _refuse(self, error: RequestError) -> NoReturn:
        """Raises the error of a request that does not get as far as the model, which counts all others."""
        self.model.metrics.request_failed(presentation(error).metric_label)
        raise error

    def _check_reranker(self) -> None:
        """Raises RefusedError unless the model is a reranker."""
        kind = self.model.info.kind
        if kind is not Kind.RERANKER:
            self.model.metrics.request_failed("model_type")
            problem = NOT_RERANKER if kind is Kind.CLASSIFIER else NOT_CLASSIFIER_AT_ALL
            raise RefusedError("FAILED_PRECONDITION", problem)

    async def tokenize(self, request: tei.EncodeRequest, permit: Permit | None) -> Reply:
        """Gives the tokens of a text."""
        call = self.model.tokenize(
            [request.inputs],
            add_special_tokens=request.add_special_tokens,
            prompt_name=_optional(request, "prompt_name"),
        )
        [found] = await self._accounting.logged("tokenize", call)
        tokens = [tei.SimpleToken(id=t.id, text=t.text, special=t.special, start=t.start, stop=t.stop) for t in found]
        return Reply(tei.EncodeResponse(tokens=tokens).SerializeToString())

    async def decode(self, request: tei.DecodeRequest, permit: Permit | None) -> Reply:
        """Gives the text of token ids."""
        call = self.model.decode([list(request.ids)], skip_special_tokens=request.skip_special_tokens)
        [text] = await self._accounting.logged("decode", call)
        return Reply(tei.DecodeResponse(text=text).SerializeToString())


class Reranked:
    """What is kept of a stream: numbers of every item, and texts where they are to be given back."""

    def __init__(self, share: Share) -> None:
        self.items = 0
        self.raw_scores = self.return_text = False
        self.texts: list[str] = []
        self._share = share
        self._bytes = 0
        self._logits = array("f")
        self._characters = self._tokens = 0
        self._seconds = np.zeros(3)
        """Of tokenization, queue and inference, over all items."""

    async def noting(self, requests: AsyncIterable[tei.RerankStreamRequest]) -> AsyncIterator[tei.RerankStreamRequest]:
        """The requests. Raises RefusedError where they are too many, or their texts too long, OverloadedError."""
        async for request in requests:
            if not self.items:
                self.raw_scores, self.return_text = request.raw_scores, request.return_text
            self.items += 1
            if self.items > MAX_RERANKED:
                raise RefusedError("INVALID_ARGUMENT", f"the stream has more than {MAX_RERANKED} texts")
            if self.return_text:
                self._keep(request.text)
            yield request

    def _keep(self, text: str) -> None:
        size = len(text.encode())
        self._bytes += size
        if self._bytes > MAX_RETURNED:
            problem = f"the texts of a stream with `return_text` may have {MAX_RETURNED} bytes together"
            raise RefusedError("INVALID_ARGUMENT", problem)
        self._share.take(size)
        self.texts.append(text)

    def add(self, answer: Answer[list[Rank]]) -> None:
        """answer: to the next item, one rank with its logit."""
        self._logits.append(answer.value[0].score)
        self._characters += answer.usage.characters
        self._tokens += answer.usage.tokens
        timings = answer.usage.timings
        self._seconds += timings.tokenization, timings.queue, timings.inference

    def answer(self) -> Answer[list[Rank]]:
        """One answer from those to the items, with their average times. Raises NotANumberError."""
        ordered = ranks(np.array(self._logits, np.float32), raw=self.raw_scores)
        timings = Timings(*(self._seconds / len(self._logits)).tolist())
        return Answer(ordered, Usage(self._characters, self._tokens, timings))


def _options(request: Encoded, prompt_name: str | None = None) -> EncodeOptions:
    direction = DIRECTIONS.get(request.truncation_direction)
    if direction is None:
        problem = f"`truncation_direction` must be 0 (right) or 1 (left). Given: {request.truncation_direction}"
        raise RefusedError("INVALID_ARGUMENT", problem)
    return EncodeOptions(request.truncate, direction, prompt_name)


def _optional(request: Any, field: str) -> Any:
    """The value of a field with explicit presence, None where it is absent."""
    return getattr(request, field) if request.HasField(field) else None


def _counted(permit: Permit | None) -> Literal["single"] | None:
    return "single" if permit is None else None


def _ranks(done: Timed[list[Rank]], texts: Sequence[str] | None) -> bytes:
    found = [
        tei.Rank(index=rank.index, text=None if texts is None else texts[rank.index], score=rank.score)
        for rank in done.value
    ]
    return bytes(tei.RerankResponse(ranks=found).SerializeToString()) + _metadata(done)


def _metadata(done: Timed[Any]) -> bytes:
    """Field 2 of every answer; serialized fields may stand one after another."""
    timings = done.usage.timings
    found = tei.Metadata(
        compute_chars=done.usage.characters,
        compute_tokens=done.usage.tokens,
        total_time_ns=round(done.total * 1e9),
        tokenization_time_ns=round(timings.tokenization * 1e9),
        queue_time_ns=round(timings.queue * 1e9),
        inference_time_ns=round(timings.inference * 1e9),
    )
    return message(2, found.SerializeToString())
