"""What the figures of overload and soak mean, and how they come into the page; a soak in small."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

from bench.client import Connection, percentile
from bench.overload import Overload, offer
from bench.reliability_page import BEGIN, END, read_overload, read_soak, table, with_figures
from bench.soak import Soak

OVERLOAD = Overload(100, 1000, 95, 400, 500, 1.5, 8, 512, 0)
SOAK = Soak(600, {200: 9, 400: 2}, 0, 3, 180, 400, 410, 0.0)


def test_figures() -> None:
    assert OVERLOAD.share == 0.95
    assert round(SOAK.growth, 3) == 0.025
    assert SOAK.errors == 0
    assert replace(SOAK, statuses={200: 1, 500: 2, 503: 3}).errors == 5
    assert percentile([0.004, 0.001, 0.002], 0.5) == 2
    assert percentile([], 0.5) == 0


def test_page(tmp_path: Path) -> None:
    (tmp_path / "overload").write_text(json.dumps(asdict(OVERLOAD)))
    (tmp_path / "soak").write_text(json.dumps(asdict(SOAK)))
    found = table(read_overload(tmp_path / "overload"), read_soak(tmp_path / "soak"))
    assert "| goodput under overload | 90 % of the peak | 95% (95 of 100) |" in found
    assert "400 to 410 MB (2.5%)" in found
    page = with_figures(f"a\n{BEGIN}\nold\n{END}\nb\n", found)
    assert page == f"a\n{BEGIN}\n{found}\n{END}\nb\n"
    assert with_figures(page, found) == page
    assert table(read_overload(tmp_path / "none"), read_soak(tmp_path / "none")) == "\nNot measured yet.\n"


def test_requests_are_offered_at_a_rate_whether_or_not_they_are_answered() -> None:
    gate = asyncio.Event()
    waiting: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            head = await reader.readuntil(b"\r\n\r\n")
            waiting.append(await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0])))
            if len(waiting) == 10:
                gate.set()  # no answer before ten have come
            await gate.wait()
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def test() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answers, failed = await offer(url, iter([b"x"] * 10), 1000, 0.01)
        assert ([answer.status for answer in answers], failed) == ([429] * 10, 0)
        connection = await Connection.open(url)
        answer = await connection.post("/embed", b"y")
        assert (answer.status, answer.body) == (429, b"{}")
        connection.close()
        server.close()

    asyncio.run(asyncio.wait_for(test(), 10))
