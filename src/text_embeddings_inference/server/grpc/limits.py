"""What clients may keep a server waiting for and holding: messages that do not come, answers that are not taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from ..http.memory_budget import UnsentAnswers
from .sockets import address, disconnect
from .statuses import RefusedError

MAX_MESSAGE = 4 << 20
"""Bytes of a request message, as in text-embeddings-inference."""
MAX_READ = MAX_MESSAGE << 1
"""Bytes that are received of a message that is too long, so that the answer can tell its length."""
MAX_CALLS_PER_CONNECTION = 1024
GRACE_S = 1.0
"""Seconds in which an answer is not counted among those that are not taken."""
STALL_S = 0.5
"""Seconds by which a timer is too late where the process did not run."""
MAX_STREAMS = 1 << 28
"""Bytes of requests and answers that all streams together hold, as far as each holds more than one item."""
MAX_STREAM = 1 << 24
"""The same of one stream."""
SLOWEST = 1 << 16
"""Bytes a second: a client that takes a long answer more slowly loses its connection."""


class Timer:
    """Calls back after some time in which the process ran.

    What clients sent while it was stopped (SIGSTOP, a paused container) is read only after timers that are due, so
    those that are late begin anew.
    """

    def __init__(self, seconds: float | None, end: Callable[[], object]) -> None:
        """seconds: None for never."""
        self._seconds = seconds
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._start()

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _start(self) -> None:
        if self._seconds is not None:
            self._handle = self._loop.call_later(self._seconds, self._fire, self._loop.time() + self._seconds)

    def _fire(self, due: float) -> None:
        if self._loop.time() - due > STALL_S:
            self._start()
        else:
            self._end()


class Waits:
    """Waits for clients. Each ends after its time, the oldest where there are too many, all when the server ends."""

    def __init__(self, most: int | None = None) -> None:
        """most: waits at a time, None for any number."""
        self._most = most
        self._scopes: dict[asyncio.Timeout, None] = {}
        """Oldest first."""
        self._errors: dict[asyncio.Timeout, RefusedError] = {}
        """Of those that were ended."""
        self._closed = False

    @asynccontextmanager
    async def wait(self, seconds: float | None) -> AsyncIterator[None]:
        """Raises RefusedError in its body after so many seconds (None: never), or where it is ended early."""
        if self._closed:
            raise _shutting_down()
        if len(self._scopes) == self._most:
            self._end(next(iter(self._scopes)), RefusedError("RESOURCE_EXHAUSTED", "too many calls of this kind"))
        scope = asyncio.timeout(None)
        self._scopes[scope] = None
        late = RefusedError("DEADLINE_EXCEEDED", f"no message came within {seconds} s")
        timer = Timer(seconds, partial(self._end, scope, late))
        try:
            async with scope:
                yield
        except TimeoutError:
            raise self._errors[scope] from None
        finally:
            timer.cancel()
            self._scopes.pop(scope, None)
            self._errors.pop(scope, None)

    def close(self, after: float = 0) -> None:
        """Ends all waits after so many seconds; none begins any more."""
        self._closed = True
        for scope in list(self._scopes):
            self._end(scope, _shutting_down(), after)

    def _end(self, scope: asyncio.Timeout, error: RefusedError, after: float = 0) -> None:
        if scope not in self._errors:
            del self._scopes[scope]
            self._errors[scope] = error
            scope.reschedule(asyncio.get_running_loop().time() + after)


def _shutting_down() -> RefusedError:
    return RefusedError("UNAVAILABLE", "the server is shutting down")


class Untaken:
    """Answers that their clients have not taken yet, over all calls.

    Nothing in grpcio ends a call whose answer is not taken, so its connection is ended: where it takes longer than
    it may, and where the answers of all ports are too many bytes.
    """

    def __init__(self, client_timeout: float | None, unsent: UnsentAnswers) -> None:
        """client_timeout: seconds an answer may take, and as many more as it is SLOWEST bytes long."""
        self.port = 0
        """Where the server listens."""
        self._client_timeout = client_timeout
        self._unsent = unsent
        self._ending: set[asyncio.Task[None]] = set()

    @contextmanager
    def held(self, size: int, peer: str) -> Iterator[None]:
        """While an answer of so many bytes is written."""
        answer = Answer(partial(self._disconnect, address(peer)))
        seconds = None if self._client_timeout is None else self._client_timeout + size / SLOWEST
        timers = Timer(GRACE_S, partial(self._unsent.hold, answer, size)), Timer(seconds, answer.abort)
        try:
            yield
        finally:
            self._unsent.release(answer)
            for timer in timers:
                timer.cancel()

    def _disconnect(self, client: str) -> None:
        ending = asyncio.create_task(asyncio.to_thread(disconnect, {client}, self.port))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One that its client has not taken yet."""

    abort: Callable[[], None]
    """Ends its connection."""
