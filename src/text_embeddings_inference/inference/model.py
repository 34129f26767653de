"""One served model: tokenizer, queue and engine. Its methods are what routes call; they check, count and time."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Generic, Literal, NamedTuple, Self, TypeVar

from ..errors import BatchSizeError, EmptyBatchError, RequestError
from ..loading.load import Parts, warm_up
from ..queueing.jobs import Row
from ..queueing.runner import Runner, closed_error, end
from ..queueing.tuning import Tuner
from ..settings import Limits
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import CURRENT, Tracer
from ..types import EncodeOptions, Float32Array, Input, Token, Usage
from . import tasks
from .admission import Gate, Permit, Permits
from .cooperative import each, future_of_threads
from .request import ChunkedRequest, usable
from .results import Prediction, Rank, Sparse, cosine
from .tasks import Task

T = TypeVar("T")

logger = logging.getLogger(__name__)

INLINE_IDS = 500
"""So many token ids become text in about half a millisecond."""


class Answer(NamedTuple, Generic[T]):
    """What was asked for, and what it cost."""

    value: T
    usage: Usage


class Model:
    """One served model. All coroutines run on one event loop; the work is done in the engine's threads. What is not
    stopped stops itself when the interpreter ends.

    Every method raises the first failing input's RequestError. A cancelled call frees its permits, and what it still
    has in the queue is skipped.
    """

    def __init__(
        self,
        parts: Parts,
        limits: Limits,
        *,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Takes the parts' engine, and is ready after `warm_up`. metrics: None for new ones."""
        self.info = parts.info
        self.limits = limits
        if metrics is None:
            metrics = Metrics(parts.info.max_input_length)
            metrics.model(parts.info)
        self.metrics = metrics
        self.tracer = tracer
        self._parts = parts
        self._tokenizer = parts.tokenizer
        self.permits = Permits(limits.max_concurrent_requests)
        self.runner = Runner(parts.engine, limits, metrics, clock, tracer, parts.another_engine)
        self._workers = ThreadPoolExecutor(limits.tokenization_workers, thread_name_prefix="tokenizer")
        self._gate = Gate()
        self._clock = clock
        self._measuring: list[Callable[[], None]] = []  # what ends, or waits for, the threads that measure
        self._at_exit = weakref.finalize(self, end, self.runner, self._measuring)

    def warm_up(self, measured: Literal["off", "fast", "full"] = "off") -> None:
        """Waits until the engine is compiled, and runs it once; measures it now or later. Raises StartError.

        measured: `full` before this returns, `fast` in the first quiet moment after.
        """
        warm_up(self._parts.engine)
        tuner, fidelity = Tuner(self.runner, self._parts.to_measure), None
        self._measuring.append(tuner.close)
        if (measure := self._parts.measure_fidelity) is not None:
            fidelity = Thread(target=self._measure_fidelity, args=(measure,), name="fidelity", daemon=True)
            fidelity.start()
            self._measuring.append(fidelity.join)
        if measured == "full":
            if fidelity is not None:
                fidelity.join()  # it runs the engine too
            tuner.run()
        elif measured == "fast":
            tuner.start(after=fidelity)

    def _measure_fidelity(self, measure: Callable[[], float]) -> None:
        try:
            cosine = measure()
        except Exception as problem:  # whatever the hardware's library raises; the model is served all the same
            logger.warning("How near the vectors are to float32 could not be measured: %s", problem)
            return
        self.info = replace(self.info, fidelity=cosine)
        self.metrics.fidelity(cosine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def wait_for_permits(self, count: int) -> Permit:
        """Permits for `count` inputs, held as long as their `with` lasts. Handed to one of the methods below, they
        stand for those it would take, or fail to get."""
        return await self.permits.wait(count)

    # --- what can be asked ----------------------------------------------------------------------------------------

    async def embed(
        self,
        inputs: Sequence[Input],
        options: EncodeOptions,
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        permit: Permit | None = None,
    ) -> Answer[list[Float32Array]]:
        """One vector `[dimensions]` for each input."""
        return await self._answer(tasks.embed(normalize=normalize, dimensions=dimensions), inputs, options, permit)

    async def embed_all(
        self,
        inputs: Sequence[Input],
        options: EncodeOptions,
        *,
        multi_vector: bool = False,
        permit: Permit | None = None,
    ) -> Answer[list[Float32Array]]:
        """One vector for each token of each input, `[n, D]`: the last hidden states, as they are.

        multi_vector: those for late interaction instead, of length 1; models made for it alone always give these.
        """
        return await self._answer(tasks.embed_all(self.info, multi_vector=multi_vector), inputs, options, permit)

    async def embed_sparse(
        self, inputs: Sequence[Input], options: EncodeOptions, *, permit: Permit | None = None
    ) -> Answer[list[Sparse]]:
        """The SPLADE weights of each input, or the lexical weights of its tokens."""
        task = tasks.embed_sparse(self.info, self._tokenizer.special_ids)
        return await self._answer(task, inputs, options, permit)

    async def similarity(self, source: str, sentences: Sequence[str], options: EncodeOptions) -> Answer[list[float]]:
        """The cosine of each sentence with the source."""
        if not sentences:
            raise EmptyBatchError("inputs.sentences")
        (first, *others), usage = await self._answer(tasks.similarity(), [source, *sentences], options)
        return Answer([cosine(first, other) for other in others], usage)

    async def predict(
        self, inputs: Sequence[Input], options: EncodeOptions, *, raw_scores: bool = False, permit: Permit | None = None
    ) -> Answer[list[list[Prediction]]]:
        """The classes of each input, best first."""
        return await self._answer(tasks.predict(self.info, raw=raw_scores), inputs, options, permit)

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        options: EncodeOptions,
        *,
        raw_scores: bool = False,
        permit: Permit | None = None,
    ) -> Answer[list[Rank]]:
        """The scores of the texts for the query, best first."""
        if not texts:
            raise EmptyBatchError("texts")
        ranking = tasks.ranking(self.info, query, options)
        values, usage = await self._answer(ranking.task, ranking.inputs(texts), options, permit)
        return Answer(ranking.ranked(values, raw=raw_scores), usage)

    async def tokenize(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, prompt_name: str | None = None
    ) -> list[list[Token]]:
        """The tokens of each text, not truncated."""

        def work() -> list[list[Token] | RequestError]:
            return self._tokenizer.tokenize(texts, add_special_tokens=add_special_tokens, prompt_name=prompt_name)

        self._check_batch(len(texts))
        return usable(await self._do(work, is_long=self._tokenizer.is_long(texts)))

    @property
    def max_ids(self) -> int:
        """Token ids of a text that is decoded."""
        return self._tokenizer.max_ids

    async def decode(self, batch: Sequence[list[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each list of ids, which have at most `max_ids` each."""

        def work() -> list[str | RequestError]:
            return self._tokenizer.decode(batch, skip_special_tokens=skip_special_tokens)

        self._check_batch(len(batch))
        return usable(await self._do(work, is_long=sum(map(len, batch)) > INLINE_IDS))

    @property
    def healthy(self) -> bool:
        """Whether the engine can be trusted, as far as is known now."""
        return self.runner.healthy

    def watch_health(self, changed: Callable[[], object]) -> None:
        """Has `changed` called, by any thread, whenever `healthy` has changed."""
        self.runner.watch_health(changed)

    async def close(self) -> None:
        """Answers what was accepted, then stops the engine. What is asked later fails with an InferenceError."""
        await self._gate.close()
        await asyncio.get_running_loop().run_in_executor(None, self.stop)

    def abort(self) -> None:
        """Answers what was accepted with an InferenceError, and takes nothing more."""
        self.runner.abort()

    def stop(self) -> None:
        """Runs what is queued, then gives back the engine and all threads; does nothing the second time, and in a child
        of the process that has the threads."""
        if self.runner.is_forked:
            return
        for stop in self._measuring:
            stop()
        self.runner.close()
        self._workers.shutdown()
        self._at_exit.detach()

    # --- a request's way ------------------------------------------------------------------------------------------

    async def _answer(
        self, task: Task[T], inputs: Sequence[Input], options: EncodeOptions, permit: Permit | None = None
    ) -> Answer[list[T]]:
        self.runner.check_process()
        count = len(inputs)
        self._check_batch(count)
        with self.permits.take(count) if permit is None else nullcontext():
            task.check(self.info, count)
            start = self._clock()
            self.metrics.task_started(task.family, count)
            with self._gate.entered():
                rows, usage = await self._drive(ChunkedRequest(inputs, task, start, CURRENT.get()), options)
            self.metrics.task_succeeded(task.family, self._clock() - start, usage.timings, count)
        return Answer(await each(rows, task.finish), usage)

    async def _drive(
        self, request: ChunkedRequest[asyncio.Future[None]], options: EncodeOptions
    ) -> tuple[list[Row], Usage]:
        """While one chunk runs, the next is tokenized. What fails, or is cancelled, takes back what it has queued."""
        try:
            while (chunk := request.next_chunk()) is not None:
                how = chunk.options(options)
                work = partial(self._tokenizer.encode, chunk.inputs, how)
                results = await self._do(work, is_long=self._tokenizer.is_long(chunk.inputs, how))
                self.metrics.input_lengths(request.encoded(results, self._clock()))
                request.check_width(self.info)
                if request.is_full:
                    await request.first
                    request.received()
                done, on_done = future_of_threads()
                self.runner.submit(request.queue(done, on_done, self._clock()))
            while not request.is_done:
                await request.first
                request.received()
        except BaseException:
            for group in request.groups:
                self.runner.cancel(group)
            raise
        return request.result()

    async def _do(self, work: Callable[[], T], *, is_long: bool) -> T:
        """Does the work here, or in a worker thread if it would hold up the loop."""
        if not is_long:
            return work()
        try:
            working = asyncio.get_running_loop().run_in_executor(self._workers, work)
        except RuntimeError as error:  # the workers were shut down
            raise closed_error() from error
        return await working

    def _check_batch(self, count: int) -> None:
        if count == 0:
            raise EmptyBatchError
        if count > max(1, self.limits.max_client_batch_size):  # one input is no batch
            raise BatchSizeError(count, self.limits.max_client_batch_size)
