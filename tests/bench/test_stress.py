"""What the figures of overload and soak mean."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

from bench.load.client import Answer, percentile
from bench.load.wrk import Measurement
from bench.stress.overload import PROBES, Overload, probe, summary
from bench.stress.soak import Soak

OVERLOAD = Overload(100, 1000, 95, 400, 500, 1.5, 8, 512, 0)
SOAK = Soak(600, {200: 9, 400: 2}, 0, 3, 180, 400, 410, 0.0)


def test_figures() -> None:
    assert OVERLOAD.share == 0.95
    assert round(SOAK.growth, 3) == 0.025
    assert SOAK.errors == 0
    assert replace(SOAK, statuses={200: 1, 500: 2, 503: 3}).errors == 5
    assert percentile([0.004, 0.001, 0.002], 0.5) == 2
    assert percentile([], 0.5) == 0


def test_goodput_is_what_was_answered_and_latencies_go_by_status() -> None:
    flood = Measurement(1000, 10.0, 0, 1, 2, 3, errors=905, client_cores=0, refused=900)
    probes = [
        Answer(200, b"", 0.9, 1.0),
        Answer(200, b"", 0.5, 5.0),
        Answer(429, b"", 0.002, 6.0),
        Answer(500, b"", 1, 7.0),
    ]
    found = summary(12.0, flood, probes, counted_from=2.0)
    assert (found.goodput, found.share, found.offered) == (10.2, 0.85, 100.4)
    assert (found.accepted_p50_ms, found.refused_p50_ms) == (500, 2)
    assert found.others == 5 + 1


def test_probes_send_on_whatever_the_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")

    async def test() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answers = await probe(url, itertools.repeat(b"x"), 1.5)
        assert {answer.status for answer in answers} == {429}
        assert PROBES < len(answers) <= 2 * PROBES
        server.close()

    asyncio.run(asyncio.wait_for(test(), 10))
