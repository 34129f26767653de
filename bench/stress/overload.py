"""What a server does with ten times as many requests as it can answer.

python -m bench.stress.overload --model .venv/models/all-MiniLM-L6-v2 [--seconds 20] [--factor 10]

First as many clients as keep it busy find out its capacity, and once more at the end; in between wrk sends many times
as many. It keeps so many connections that those which are not waiting for a vector, each sending a request about once a
second, come to that rate. A few clients beside it time what is accepted and what is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench.load.client import Answer, Connection, percentile
from bench.load.server import router_command, running
from bench.load.texts import Load, TextMaker, bodies_of
from bench.load.wrk import Measurement, Wrk

TOKENS = 128
TEXTS = 200
BUSY = 64
"""Clients that find out the capacity."""
PERMITS = 128
"""Inputs in the house: they bound the latency."""
PAUSE_MS = 1000
"""Between the answer to a client and its next request, on average."""
PROBES = 20
"""Clients that time their requests."""
FILLING = 0.25
"""Of the time, in which probes are not counted."""
PATH = "/embed"
RESULTS = Path(__file__).parents[1] / "results" / "overload.json"


@dataclass(frozen=True, slots=True)
class Overload:
    """peak, offered, goodput: requests per second; accepted_*, refused_*: latencies in ms of those with status 200 and
    429; bound_ms: what as many requests as may be in the house take at this goodput; others: answers with another
    status, and requests without one.
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


async def probe(url: str, bodies: Iterator[bytes], seconds: float) -> list[Answer]:
    """The answers to PROBES clients, each of which pauses as long as those of the load.

    Raises OSError or asyncio.IncompleteReadError where there is none.
    """
    answers: list[Answer] = []
    end, pause = time.perf_counter() + seconds, PAUSE_MS / 1000

    async def client(number: int) -> None:
        await asyncio.sleep(pause * number / PROBES)
        connection = await Connection.open(url)
        while time.perf_counter() < end:
            answers.append(await connection.post(PATH, next(bodies)))
            await asyncio.sleep(pause)
        connection.close()

    await asyncio.gather(*(client(number) for number in range(PROBES)))
    return answers


def summary(peak: float, flood: Measurement, probes: list[Answer], counted_from: float) -> Overload:
    """probes: those that ended before `counted_from` (`time.perf_counter`) are counted by their status only."""
    counted = [answer for answer in probes if answer.ended >= counted_from]
    accepted = [answer.seconds for answer in counted if answer.status == 200]
    refused = [answer.seconds for answer in counted if answer.status == 429]
    own = sum(answer.status == 200 for answer in probes)
    goodput = (flood.requests - flood.refused + own) / flood.seconds
    return Overload(
        peak=peak,
        offered=(flood.requests + len(probes)) / flood.seconds,
        goodput=goodput,
        accepted_p50_ms=percentile(accepted, 0.5),
        accepted_p99_ms=percentile(accepted, 0.99),
        refused_p50_ms=percentile(refused, 0.5),
        refused_p99_ms=percentile(refused, 0.99),
        bound_ms=1000 * PERMITS / goodput if goodput else 0.0,
        others=flood.errors - flood.refused + sum(answer.status not in (200, 429) for answer in probes),
    )


async def measure(url: str, bodies: list[bytes], seconds: float, factor: float, folder: Path) -> Overload:
    lengths = [TOKENS] * len(bodies)
    busy = Wrk(Load("capacity", BUSY, bodies, lengths), url, folder, PATH)
    busy.warm_up(2)
    before = busy.run(seconds / 2).requests_per_second
    connections = PERMITS + round(factor * before * PAUSE_MS / 1000)
    flood = Wrk(Load("overload", connections, bodies, lengths), url, folder, PATH, PAUSE_MS)
    start = time.perf_counter()
    flooded, probes = await asyncio.gather(
        asyncio.to_thread(flood.run, seconds), probe(url, itertools.cycle(bodies), seconds)
    )
    after = busy.run(seconds / 2).requests_per_second  # the machine may have changed its pace
    return summary((before + after) / 2, flooded, probes, start + FILLING * seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stress.overload", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seconds", type=float, default=20, help="of overload, and for the peak (default: 20)")
    parser.add_argument("--factor", type=float, default=10, help="times the capacity that is offered (default: 10)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the figures go (default: {RESULTS.name})")
    given = parser.parse_args()
    bodies = [bodies_of([text]) for text in TextMaker(given.model).texts([TOKENS] * TEXTS)]
    command = router_command(str(given.model), ["--max-concurrent-requests", str(PERMITS), "--prometheus-port", "0"])
    with running(command) as server, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = uvloop.run(measure(server.url, bodies, given.seconds, given.factor, Path(folder)))
    given.results.write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(f"{given.results}: {asdict(found)}, share {found.share:.2f}")


if __name__ == "__main__":
    main()
