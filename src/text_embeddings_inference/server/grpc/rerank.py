"""The two calls that rank texts: one message with all of them, or a stream with one in each."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterable, AsyncIterator, Sequence

import numpy as np

from ...errors import BatchSizeError, EmptyBatchError
from ...inference import tasks
from ...inference.admission import Permit
from ...inference.model import Answer, Model
from ...inference.results import Rank
from ...types import EncodeOptions, Timings, Usage
from ..accounting import Served
from ..http.memory_budget import Share
from . import tei_pb2 as tei
from .calls import Reply, metadata, options
from .statuses import RefusedError
from .streams import Ahead, in_order

NOT_CLASSIFIER_AT_ALL = "model is not a classifier model"
MAX_ITEMS = 1 << 16
"""Of one stream, which is answered when all are there."""
MAX_RETURNED = 1 << 24
"""Bytes of the texts that a stream gives back."""


async def rerank(served: Served, request: tei.RerankRequest, permit: Permit | None) -> Reply:
    """Gives the scores of the texts for the query, best first."""
    texts = request.texts[: served.model.limits.max_client_batch_size + 1]  # a list of all that may be sent takes long
    how = options(request)
    if not request.texts:
        error = EmptyBatchError("texts")
        served.accounting.failed(error)
        raise error
    _check_reranker(served)
    done = await served.accounting.timed("rerank", "batch", _rank(served.model, request, texts, how))
    return Reply(_ranks(done.value, texts if request.return_text else None) + metadata(done), done)


async def _rank(model: Model, request: tei.RerankRequest, texts: list[str], how: EncodeOptions) -> Answer[list[Rank]]:
    most = model.limits.max_client_batch_size
    if len(request.texts) > most:
        raise BatchSizeError(len(request.texts), most)
    with await model.wait_for_permits(len(texts)) as permit:
        return await model.rerank(request.query, texts, how, raw_scores=request.raw_scores, permit=permit)


async def rerank_stream(
    served: Served, requests: AsyncIterable[tei.RerankStreamRequest], ahead: Ahead, share: Share
) -> Reply:
    """The same of a stream: each item has its own query, the first says what is answered.

    share: of the memory, for texts that are to be given back.
    """
    _check_reranker(served)
    seen = _Seen(share, is_late=tasks.is_late(served.model.info))
    done = await served.accounting.timed("rerank_stream", "batch", _rank_all(served.model, requests, ahead, seen))
    return Reply(_ranks(done.value, seen.texts if seen.return_text else None) + metadata(done), done)


async def _rank_all(
    model: Model, requests: AsyncIterable[tei.RerankStreamRequest], ahead: Ahead, seen: _Seen
) -> Answer[list[Rank]]:
    async def score(request: tei.RerankStreamRequest) -> Answer[list[Rank]]:
        how = options(request)
        with await model.wait_for_permits(1) as permit:
            return await model.rerank(request.query, [request.text], how, raw_scores=seen.needs_raw, permit=permit)

    async for answer in in_order(seen.noting(requests), score, ahead):
        seen.add(answer)
    if not seen.items:
        raise EmptyBatchError("texts")
    return seen.answer()


class _Seen:
    """What is kept of a stream: numbers of every item, and texts where they are to be given back."""

    def __init__(self, share: Share, *, is_late: bool) -> None:
        """is_late: whether the model is for late interaction, whose scores depend on the length of each query."""
        self.items = 0
        self._is_late = is_late
        self.raw_scores = self.return_text = False
        self.texts: list[str] = []
        self._share = share
        self._bytes = 0
        self._logits = array("f")
        self._characters = self._tokens = 0
        self._seconds = np.zeros(3)
        """Of tokenization, queue and inference, over all items."""

    @property
    def needs_raw(self) -> bool:
        """Whether `add` takes raw scores."""
        return self.raw_scores or not self._is_late

    async def noting(self, requests: AsyncIterable[tei.RerankStreamRequest]) -> AsyncIterator[tei.RerankStreamRequest]:
        """The requests. Raises RefusedError where they are too many, or their texts too long, OverloadedError."""
        async for request in requests:
            if not self.items:
                self.raw_scores, self.return_text = request.raw_scores, request.return_text
            self.items += 1
            if self.items > MAX_ITEMS:
                raise RefusedError("INVALID_ARGUMENT", f"the stream has more than {MAX_ITEMS} texts")
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
        """answer: to the next item, one rank with its raw score, or with its score unless `needs_raw`."""
        self._logits.append(answer.value[0].score)
        self._characters += answer.usage.characters
        self._tokens += answer.usage.tokens
        timings = answer.usage.timings
        self._seconds += timings.tokenization, timings.queue, timings.inference

    def answer(self) -> Answer[list[Rank]]:
        """One answer from those to the items, with their average times. Raises NotANumberError."""
        ordered = tasks.ranked(self._logits.tolist(), raw=self.raw_scores or self._is_late)
        timings = Timings(*(self._seconds / len(self._logits)).tolist())
        return Answer(ordered, Usage(self._characters, self._tokens, timings))


def _check_reranker(served: Served) -> None:
    """Raises RefusedError unless the model is a reranker."""
    info = served.model.info
    error = tasks.rerank().refuses(info)
    if error is not None:
        served.accounting.failed(error)
        is_classifier = tasks.predict(info).refuses(info) is None
        raise RefusedError("FAILED_PRECONDITION", tasks.NOT_RERANKER if is_classifier else NOT_CLASSIFIER_AT_ALL)


def _ranks(found: Sequence[Rank], texts: Sequence[str] | None) -> bytes:
    """texts: to give back with their scores, None for none."""
    response = [
        tei.Rank(index=rank.index, text=None if texts is None else texts[rank.index], score=rank.score)
        for rank in found
    ]
    return bytes(tei.RerankResponse(ranks=response).SerializeToString())
