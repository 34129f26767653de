"""What a server does with ten times as many requests as it can answer.

python -m bench.overload --model .venv/models/all-MiniLM-L6-v2 [--seconds 20] [--factor 10]

First as many clients as keep it busy find out its capacity, and once more at the end; in between requests come at a
fixed rate, whether or not the ones before them are answered, and are timed from when they were due.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench.client import Answer, Connection, percentile
from bench.server import router_command, running
from bench.texts import TextMaker, bodies_of

TOKENS = 128
TEXTS = 200
BUSY = 64
"""Clients that find out the capacity."""
PERMITS = 128
"""Inputs in the house: they bound the latency."""
FILLING = 0.25
"""Of the time; it is not counted."""
MOST_CONNECTIONS = 4000
PATH = "/embed"
RESULTS = Path(__file__).parent / "results" / "overload.json"


@dataclass(frozen=True, slots=True)
class Overload:
    """peak, offered, goodput: requests per second; accepted_*, refused_*: latencies in ms of those with status 200 and
    429; bound_ms: what as many requests as may be in the house take at this goodput; others: answers with another
    status, and requests without one. The first quarter of the time is not counted: the queue fills.
    """

    peak: float
    offered: float
    goodput: float
    accepted_p50_ms: float
    accepted_p99_ms: float
    refused_p50_ms: float
    refused_p99_ms: float
    bound_ms: float
    others: int

    @property
    def share(self) -> float:
        """Of the peak that is left under overload."""
        return self.goodput / self.peak


async def capacity(url: str, bodies: Iterator[bytes], seconds: float) -> float:
    """Requests per second of clients that each wait for their answer."""
    end, answered = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal answered
        connection = await Connection.open(url)
        while time.perf_counter() < end:
            answer = await connection.post(PATH, next(bodies))
            answered += answer.status == 200
        connection.close()

    await asyncio.gather(*(client() for _ in range(BUSY)))
    return answered / seconds


async def offer(url: str, bodies: Iterator[bytes], rate: float, seconds: float) -> tuple[list[Answer], int]:
    """Sends `rate` requests per second; the answers, and how many requests had none."""
    idle: list[Connection] = []
    answers: list[Answer] = []
    tasks: set[asyncio.Task[None]] = set()
    failed = opened = 0

    async def send(due: float) -> None:
        nonlocal failed, opened
        try:
            if idle:
                connection = idle.pop()
            else:
                opened += 1
                connection = await Connection.open(url)
            answers.append(await connection.post(PATH, next(bodies), due=due))
            idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            failed += 1

    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        if len(tasks) >= MOST_CONNECTIONS:
            failed += 1
            continue
        task = asyncio.create_task(send(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return answers, failed


async def measure(url: str, bodies: list[bytes], seconds: float, factor: float) -> Overload:
    endless = itertools.cycle(bodies)
    await capacity(url, endless, min(2, seconds))  # warms up
    before = await capacity(url, endless, seconds / 2)
    start = time.perf_counter()
    answers, failed = await offer(url, endless, factor * before, seconds)
    counted = [answer for answer in answers if start + FILLING * seconds <= answer.ended < start + seconds]
    accepted = [answer.seconds for answer in counted if answer.status == 200]
    refused = [answer.seconds for answer in counted if answer.status == 429]
    goodput = len(accepted) / ((1 - FILLING) * seconds)
    peak = (before + await capacity(url, endless, seconds / 2)) / 2  # the machine may have changed its pace
    return Overload(
        peak=peak,
        offered=factor * before,
        goodput=goodput,
        accepted_p50_ms=percentile(accepted, 0.5),
        accepted_p99_ms=percentile(accepted, 0.99),
        refused_p50_ms=percentile(refused, 0.5),
        refused_p99_ms=percentile(refused, 0.99),
        bound_ms=1000 * PERMITS / goodput if goodput else 0.0,
        others=failed + sum(answer.status not in (200, 429) for answer in answers),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seconds", type=float, default=20, help="of overload, and for the peak (default: 20)")
    parser.add_argument("--factor", type=float, default=10, help="times the capacity that is offered (default: 10)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the figures go (default: {RESULTS.name})")
    given = parser.parse_args()
    bodies = [bodies_of([text]) for text in TextMaker(given.model).texts([TOKENS] * TEXTS)]
    command = router_command(str(given.model), ["--max-concurrent-requests", str(PERMITS), "--prometheus-port", "0"])
    with running(command) as server:
        found = uvloop.run(measure(server.url, bodies, given.seconds, given.factor))
    given.results.write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(f"{given.results}: {asdict(found)}, share {found.share:.2f}")


if __name__ == "__main__":
    main()
