"""A request's way from its inputs to its rows: cut into pieces, tokenized, queued, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from ..errors import InferenceError, RequestError, presentation
from ..queueing.jobs import JobGroup, Row
from ..queueing.runner import CLOSED, Runner
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import CURRENT
from ..tokenization import Tokenizer
from ..types import EncodeOptions, Encoding, Input, Usage
from .chunks import PIECES_AT_ONCE, Distinct, Piece, Tally

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Queued:
    """A piece of a request in the queue. done: when it is answered; tokenization, waited: see `Tally.add`."""

    group: JobGroup
    done: asyncio.Future[None]
    tokenization: float
    waited: float


class Pipeline:
    """Tokenizer and queue of one model, as coroutines of one event loop.

    What is cancelled, or fails, takes back what it still has in the queue.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        workers: ThreadPoolExecutor,
        runner: Runner,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._tokenizer = tokenizer
        self._workers = workers
        self._runner = runner
        self._metrics = metrics
        self._clock = clock
        self._open = 0  # requests on their way
        self._drained: asyncio.Future[None] | None = None  # there once the pipeline is closed

    async def close(self) -> None:
        """Waits for the requests on their way; lets in no other."""
        self._drained = self._drained or asyncio.get_running_loop().create_future()
        if self._open:
            await self._drained

    async def answer(
        self,
        inputs: Sequence[Input],
        options: EncodeOptions,
        start: float,
        *,
        tokens: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[list[Row], Usage]:
        """The row of each input. While one piece runs, the next is tokenized.

        start: when the request's time began; check: called when a piece was tokenized, may raise. Raises InferenceError
        once the pipeline is closed.
        """
        with self._entered():
            return await self._answer(inputs, options, start, tokens=tokens, check=check)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        if self._drained is not None:
            raise InferenceError(CLOSED)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self._drained is not None and not self._open:
                self._drained.set_result(None)

    async def _answer(
        self, inputs: Sequence[Input], options: EncodeOptions, start: float, *, tokens: bool, check: Callable[[], None]
    ) -> tuple[list[Row], Usage]:
        request, tally, trace = Distinct(inputs), Tally(), CURRENT.get()
        rows: list[Row] = []
        queued: deque[_Queued] = deque()

        async def receive() -> None:
            first = queued[0]
            await first.done
            found = first.group.results()
            tally.add(first.group, found, tokenization=first.tokenization, waited=first.waited)
            rows.extend(found)
            queued.popleft()
            if trace is not None:
                trace.ran((row.batch, row.queue) for row in found)

        began = start
        try:
            for piece in request.pieces():
                encodings = await self._encode(piece, options)
                tokenization = self._clock() - began
                if trace is not None:
                    trace.tokenized(began, began + tokenization)
                check()
                if len(queued) == PIECES_AT_ONCE:
                    await receive()
                waited = self._clock() - start - tokenization
                ahead = sum(earlier.group.length for earlier in queued)
                group, done = self._queue(encodings, piece.copies, tokens=tokens, ahead=ahead)
                queued.append(_Queued(group, done, tokenization, waited))
                began = self._clock()
            while queued:
                await receive()
        except BaseException:
            for left in queued:
                self._runner.cancel(left.group)
            raise
        return request.spread(rows), tally.usage()

    async def do(self, work: Callable[[], T], *, is_long: bool) -> T:
        """Does the work here, or in a worker thread if it would hold up the loop."""
        if not is_long:
            return work()
        try:
            working = asyncio.get_running_loop().run_in_executor(self._workers, work)
        except RuntimeError as error:  # the workers were shut down
            raise InferenceError(CLOSED) from error
        return await working

    async def _encode(self, piece: Piece, options: EncodeOptions) -> list[Encoding]:
        def work() -> list[Encoding | RequestError]:
            return self._tokenizer.encode(piece.inputs, options)

        results = await self.do(work, is_long=self._tokenizer.is_long(piece.inputs, options))
        encodings = first_error(results, self._metrics, piece.copies)
        copies = zip(encodings, piece.copies, strict=True)
        self._metrics.input_lengths(len(encoding) for encoding, times in copies for _ in range(times))
        return encodings

    def _queue(
        self, encodings: list[Encoding], copies: Sequence[int], *, tokens: bool, ahead: int
    ) -> tuple[JobGroup, asyncio.Future[None]]:
        """Queues encodings; the future is done when they are answered."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def answer() -> None:
            if not done.done():
                done.set_result(None)

        def on_done() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(answer)

        group = JobGroup(encodings, tokens=tokens, on_done=on_done, copies=copies, ahead=ahead)
        self._runner.submit(group)
        return group, done


def first_error(results: Sequence[T | RequestError], metrics: Metrics, copies: Sequence[int] | None = None) -> list[T]:
    """The results. Raises the error of the first input that has one; the others are counted.

    copies: how many inputs each result is for.
    """
    first: RequestError | None = None
    for result, times in zip(results, copies or [1] * len(results), strict=True):
        if isinstance(result, RequestError):
            others = times if first else times - 1
            first = first or result
            if others:
                metrics.request_failed(presentation(result).metric_label, others)
    if first is not None:
        raise first
    return [result for result in results if not isinstance(result, RequestError)]
