"""What is asked of a model over HTTP, as values: a body, the call that it becomes, and how the answer is written.

A *dialect* is how a family of clients writes errors and costs; an *operation* is one thing that can be asked. What
happens around every operation (counting, timing, logs, traces, the place of a fault) is said once, in
`Operation.run` and `accounting`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from ...errors import RequestError
from ...settings import Limits
from ...telemetry.metrics import Method
from ..accounting import Served, Timed
from ..http.errors import Failure
from ..http.response import Header, Reply

B = TypeVar("B", bound=Struct)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of clients is told of failures and costs."""

    error: Callable[[Failure], Reply]
    """The answer that tells of a failure."""
    error_type: type[Struct]
    """Of its body."""
    headers: Callable[[Timed[Any]], tuple[Header, ...]]
    """What a request cost."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call into the model, not made yet."""

    answer: Callable[[], Coroutine[Any, Any, Any]]
    place: Callable[[int], str]
    """Where in the body an input stands."""
    method: Method | None = None
    """What the request is counted as; None: it is not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request came to, not written yet."""

    size: int
    """Bytes of its JSON, roughly; 0 for what is written at once, without another request's turn in between."""
    render: Callable[[], Awaitable[list[bytes]]]
    """The JSON, in pieces; to be called once."""
    headers: tuple[Header, ...] = ()


class Post(Protocol):
    """Answers POST with a JSON body."""

    @property
    def name(self) -> str:
        """The name of the operation, in the OpenAPI document and in logs and traces."""

    @property
    def summary(self) -> str:
        """What it does, on one line."""

    @property
    def body(self) -> type[Struct]:
        """The type of its body."""

    @property
    def result(self) -> Any:
        """The type of the JSON of its answer."""

    def most_items(self, limits: Limits) -> int:
        """How many items a list of the body may have."""

    def model(self, body: Any) -> str | None:
        """The name of the model that the body asks for, if it names one."""

    async def run(self, served: Served, body: Any, dialect: Dialect) -> Outcome:
        """Asks the model. Raises RequestError, or RejectedError for what is no body of this operation."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[B, R]):
    """A `Post` that is one call into the model."""

    body: type[B]
    call: Callable[[Served, B], Call]
    """Raises RequestError. Its docstring is the summary."""
    render: Callable[[Served, B, R], Awaitable[list[bytes]]]
    """The JSON of the answer, in pieces. R: the answer and what it cost, or the answer alone of what is not timed."""
    result: Any
    span: str = ""
    """The name in logs and traces, if it is not that of `call`."""
    size: Callable[[Any], int] = lambda value: 0
    """See `Outcome.size`; value: the answer without its cost."""
    model: Callable[[B], str | None] = lambda body: None
    timed: bool = True
    """Whether text-embeddings-inference times it and tells what it cost."""

    @property
    def name(self) -> str:
        return self.call.__name__

    @property
    def summary(self) -> str:
        return (self.call.__doc__ or "").partition("\n")[0]

    def most_items(self, limits: Limits) -> int:
        return max(1, limits.max_client_batch_size)

    async def run(self, served: Served, body: B, dialect: Dialect) -> Outcome:
        accounting, span = served.accounting, self.span or self.name
        with accounting.counting_failures(span):
            call = self.call(served, body)
        done: Any
        if not self.timed:
            done = await accounting.logged(span, _located(call))
            return Outcome(self.size(done), partial(self.render, served, body, done))
        done = await accounting.timed(span, call.method, _located(call))
        return Outcome(self.size(done.value), partial(self.render, served, body, done), dialect.headers(done))


async def _located(call: Call) -> Any:
    """The answer; errors know where in the body their input stands."""
    try:
        return await call.answer()
    except RequestError as error:
        if error.index is not None:
            error.place = call.place(error.index)
        raise
