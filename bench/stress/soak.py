"""A server under all that clients do, for ten minutes: does it stay right, and does its memory stay flat?

python -m bench.stress.soak --model .venv/models/all-MiniLM-L6-v2 [--seconds 600]

Clients that send texts of all lengths and lists of them keep it at full load; others leave in the middle of a request,
send what is no JSON or no HTTP, or hang up. One asks for the same text again and again, and compares.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvloop

from bench.load.client import HEAD, Connection
from bench.load.server import Server, router_command, running
from bench.load.texts import TextMaker, bodies_of

RESULTS = Path(__file__).parents[1] / "results" / "soak.json"
SETTLED = 0.2
"""After this part of the time the memory must be flat: two minutes of ten."""
KINDS = ("short", "short", "ragged", "long", "list")
"""Of requests, each as often as it stands here."""
CLIENTS = 16
LEAVERS = 2
PATH = "/embed"
MALFORMED = (
    b"not json",
    b'{"inputs": ',
    b'{"inputs": 7}',
    b'{"inputs": []}',
    b'{"inputs": ""}',
    b'{"inputs": "x", "prompt_name": "none"}',
    b'{"inputs": "' + b"x" * 3_000_000 + b'"}',
)
NO_HTTP = (b"\x16\x03\x01 hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000)


@dataclass(frozen=True, slots=True)
class Soak:
    """statuses: how many answers had each; broken: requests of well-behaved clients that got none; left: requests whose
    client did not wait; memory_*: resident MB since it had settled; distance: the largest of a value of the vector that
    was asked for again and again from what it was at first.
    """

    seconds: float
    statuses: dict[int, int]
    broken: int
    left: int
    memory_start: float
    memory_least: float
    memory_most: float
    distance: float

    @property
    def errors(self) -> int:
        """Answers with a status of 500 or more."""
        return sum(count for status, count in self.statuses.items() if status >= 500)

    @property
    def growth(self) -> float:
        """Of the memory, from the least to the most since it had settled: 0.05 is 5 %."""
        return self.memory_most / self.memory_least - 1


class Soaking:
    """The clients, and what they saw."""

    def __init__(self, server: Server, texts: dict[str, list[bytes]], seconds: float) -> None:
        self._server = server
        self._texts = texts
        self._seconds = seconds
        self._end = time.perf_counter() + seconds
        self._random = random.Random(7)
        self._statuses: Counter[int] = Counter()
        self._memory: list[float] = []
        self._broken = self._left = 0
        self._distance = 0.0

    async def run(self) -> Soak:
        clients: list[Callable[[], Awaitable[None]]] = [*[self._asks] * CLIENTS, *[self._leaves] * LEAVERS]
        clients += [self._sends_malformed, self._speaks_no_http, self._compares, self._watches_memory]
        await asyncio.gather(*(client() for client in clients))
        settled = self._memory[int(SETTLED * len(self._memory)) :]
        return Soak(
            seconds=self._seconds,
            statuses=dict(sorted(self._statuses.items())),
            broken=self._broken,
            left=self._left,
            memory_start=self._memory[0],
            memory_least=min(settled),
            memory_most=max(settled),
            distance=self._distance,
        )

    @property
    def _goes_on(self) -> bool:
        return time.perf_counter() < self._end

    async def _asks(self) -> None:
        while self._goes_on:
            connection = await Connection.open(self._server.url)
            for _ in range(self._random.randint(1, 200)):
                body = self._random.choice(self._texts[self._random.choice(KINDS)])
                try:
                    self._statuses[(await connection.post(PATH, body)).status] += 1
                except (OSError, asyncio.IncompleteReadError):
                    self._broken += 1
                    break
                if not self._goes_on:
                    break
            connection.close()

    async def _leaves(self) -> None:
        while self._goes_on:
            connection = await Connection.open(self._server.url)
            body = self._random.choice(self._texts["list"])
            request = HEAD % (PATH.encode(), len(body)) + body
            sent = request if self._random.random() < 0.5 else request[: self._random.randrange(len(request))]
            await connection.send(sent)
            await asyncio.sleep(self._random.random() / 4)
            connection.close()
            self._left += 1

    async def _sends_malformed(self) -> None:
        while self._goes_on:
            connection = await Connection.open(self._server.url)
            try:
                self._statuses[(await connection.post(PATH, self._random.choice(MALFORMED))).status] += 1
            except (OSError, asyncio.IncompleteReadError):
                self._broken += 1
            connection.close()
            await asyncio.sleep(0.02)

    async def _speaks_no_http(self) -> None:
        while self._goes_on:
            connection = await Connection.open(self._server.url)
            await connection.send(self._random.choice(NO_HTTP))
            status, _ = await connection.receive()
            self._statuses[status] += 1
            connection.close()
            await asyncio.sleep(0.05)

    async def _compares(self) -> None:
        connection, first = await Connection.open(self._server.url), None
        while self._goes_on:
            answer = await connection.post(PATH, self._texts["short"][0])
            self._statuses[answer.status] += 1
            if answer.status == 200:  # not 429: the lists of the others take many permits
                vector = np.array(json.loads(answer.body)[0])
                first = vector if first is None else first
                self._distance = max(self._distance, float(np.abs(vector - first).max()))
            await asyncio.sleep(0.1)

    async def _watches_memory(self) -> None:
        while self._goes_on:
            memory = self._server.memory()
            assert memory is not None
            self._memory.append(memory.resident)
            await asyncio.sleep(min(1.0, self._seconds / 50))


def bodies(maker: TextMaker) -> dict[str, list[bytes]]:
    """By kind of request."""
    return {
        "short": [bodies_of([text]) for text in maker.texts([16] * 100)],
        "ragged": [bodies_of([text]) for text in maker.texts([*range(8, 256, 3)])],
        "long": [bodies_of([text]) for text in maker.texts([2000] * 10)],  # cut to what the model takes
        "list": [bodies_of(maker.texts([20 + 3 * n for n in range(32)])) for _ in range(10)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stress.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the figures go (default: {RESULTS.name})")
    given = parser.parse_args()
    texts = bodies(TextMaker(given.model))

    async def soak(server: Server) -> Soak:
        return await Soaking(server, texts, given.seconds).run()

    with running(router_command(str(given.model), ["--prometheus-port", "0"])) as server:
        found = uvloop.run(soak(server))
    given.results.write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(f"{given.results}: {asdict(found)}, errors {found.errors}, growth {found.growth:.1%}")


if __name__ == "__main__":
    main()
