"""The scheduler under traffic, without engine and clock: what padding, waiting and throughput a policy gives.

Time is counted in what the engine needs for one token on all cores. python -m bench.stress.simulation prints a table.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from bench.load.texts import ragged_lengths
from text_embeddings_inference.queueing.scheduler import Scheduler

WIDTH_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Costs:
    """What a batch costs: `batch` for each, 1 for each token of it; times `beside` where it does not have all cores.

    Measured with MiniLM: `batch` is 15 on two cores with AVX2, and 36 on two with AMX (docs/log.md).
    """

    batch: float = 15
    beside: float = 1.9


@dataclass(slots=True, eq=False)
class Request:
    """One request of a client: when it came, how many batches had been taken by then, and its inputs that are not yet
    taken and not yet answered.
    """

    client: int
    came_at: float
    batches_before: int
    waiting: int
    unanswered: int


@dataclass(slots=True, eq=False)
class Input:
    """What the scheduler sees."""

    request: Request
    length: int
    ahead: int
    cancelled: bool = False


@dataclass(slots=True)
class Result:
    """tokens: asked for; computed: padding included; times: of each client's requests, from sending to answer;
    waits: batches that were taken after they came and before their last input was.
    """

    elapsed: float = 0
    batches: int = 0
    tokens: int = 0
    computed: int = 0
    times: dict[int, list[float]] = field(default_factory=dict)
    waits: dict[int, list[int]] = field(default_factory=dict)

    @property
    def waste(self) -> float:
        return self.computed / self.tokens

    @property
    def throughput(self) -> float:
        """Tokens asked for per time; 1 is an engine that has neither padding nor a price per batch."""
        return self.tokens / self.elapsed


class Simulation:
    """Clients that send their next request when they have the last answer, in front of one engine.

    clients: the lengths of the inputs of each request of each client.
    """

    def __init__(
        self, clients: Iterable[Iterable[Sequence[int]]], *, streams: int, max_tokens: int = 512, costs: Costs = Costs()
    ) -> None:
        self._clients = [iter(requests) for requests in clients]
        self._streams = streams
        self._max_tokens = max_tokens
        self._costs = costs
        self._queue: Scheduler[Input] = Scheduler()
        self._ahead: deque[list[Input]] = deque()  # taken, but all streams are busy
        self._running: list[tuple[float, int, list[Input]]] = []  # heap of (end, number, batch)
        self._result = Result()

    def run(self) -> Result:
        """Until the first client has nothing more to send."""
        for client in range(len(self._clients)):
            self._send(client)
        self._take()
        while self._finish_one():
            self._take()
        return self._result

    @staticmethod
    def _cost(longest: int, count: int, tokens: int) -> int:
        return -(-longest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE * count

    def _send(self, client: int) -> bool:
        lengths = next(self._clients[client], None)
        if lengths is None:
            return False
        request = Request(client, self._result.elapsed, self._result.batches, len(lengths), len(lengths))
        ahead = 0
        for length in lengths:
            self._queue.add(Input(request, length, ahead))
            ahead += length
        return True

    def _take(self) -> None:
        """What the threads of `inference.runner` do."""
        while len(self._queue):
            taken = len(self._running) + len(self._ahead)
            full = self._queue.waiting_tokens >= self._max_tokens
            if taken > self._streams or (taken == self._streams and not full):
                break
            batch = self._queue.next_batch(self._cost, self._max_tokens, max(1, self._streams - taken))
            self._result.batches += 1
            for item in batch:
                item.request.waiting -= 1
                if not item.request.waiting:
                    waited = self._result.batches - item.request.batches_before - 1
                    self._result.waits.setdefault(item.request.client, []).append(waited)
            if len(self._running) < self._streams:
                self._start(batch, alone=not taken and not len(self._queue))
            else:
                self._ahead.append(batch)

    def _start(self, batch: list[Input], *, alone: bool) -> None:
        lengths = [item.length for item in batch]
        computed = self._cost(max(lengths), len(batch), sum(lengths))
        took = self._costs.batch + computed
        if not alone and self._streams > 1:
            took *= self._costs.beside
        heappush(self._running, (self._result.elapsed + took, self._result.batches, batch))
        self._result.tokens += sum(lengths)
        self._result.computed += computed

    def _finish_one(self) -> bool:
        self._result.elapsed, _, batch = heappop(self._running)
        if self._ahead:
            self._start(self._ahead.popleft(), alone=False)
        for request in (item.request for item in batch):
            request.unanswered -= 1
            if not request.unanswered:
                self._result.times.setdefault(request.client, []).append(self._result.elapsed - request.came_at)
                if not self._send(request.client):
                    return False
        return True


def closed_loop(connections: int, lengths: Sequence[int]) -> list[Iterator[Sequence[int]]]:
    """Clients of one text per request, who take their texts from one list."""
    texts = ([length] for length in lengths)
    return [texts] * connections


def beside_a_large_request(connections: int, inputs: int) -> list[Iterable[Sequence[int]]]:
    """A client with one request of so many inputs, and others with one text per request for as long as it takes."""
    texts = ([length] for length in itertools.cycle(ragged_lengths(4000)))
    return [[ragged_lengths(inputs, seed=5)], *[texts] * connections]


def main() -> None:
    """Prints waste and throughput of ragged traffic, and how long requests of one text wait behind one of 2,000."""
    lengths = ragged_lengths(4000)
    print("batch costs | streams | connections | waste | throughput")
    for batch, streams, connections in itertools.product((15, 36), (1, 2), (8, 64)):
        result = Simulation(closed_loop(connections, lengths), streams=streams, costs=Costs(batch)).run()
        print(f"{batch} | {streams} | {connections} | {result.waste:.3f} | {result.throughput:.3f}")
    print("streams | connections | p50, p99, longest time of one text | time of 2,000 texts")
    for streams, connections in itertools.product((1, 2), (1, 8, 64)):
        result = Simulation(beside_a_large_request(connections, 2000), streams=streams).run()
        times = sorted(itertools.chain.from_iterable(result.times[client] for client in range(1, connections + 1)))
        shown = ", ".join(f"{time:.0f}" for time in (times[len(times) // 2], times[len(times) * 99 // 100], times[-1]))
        print(f"{streams} | {connections} | {shown} | {result.times[0][0]:.0f}")


if __name__ == "__main__":
    main()
