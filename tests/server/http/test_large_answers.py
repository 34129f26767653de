"""Answers of megabytes: rendered one at a time, counted until they are read, and their memory given back."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from tests.fakes import MAX_INPUT_LENGTH, PATIENCE, FakeEngine, fake_model, until
from tests.server.client import JSON, Client
from tests.server.http.connected import Transport
from tests.server.test_hostile_clients import SERVER, pytestmark, server
from tests.server.test_raw_bytes import post
from tests.server.test_serve import ask
from text_embeddings_inference.server.http.connection import Connection
from text_embeddings_inference.server.http.memory_budget import KEPT, LARGE, UnsentAnswers
from text_embeddings_inference.server.http.sender import MOST_UNSENT, Sender

__all__ = ["pytestmark"]

WIDE = SERVER.replace("import fake_model", "import FakeEngine, fake_model").replace(
    "fake_model()", "fake_model(FakeEngine(dimensions=4000))"
)
BODY = json.dumps({"inputs": [" ".join(map(str, range(1, MAX_INPUT_LENGTH + 1)))] * 32}).encode()
ANSWER = 12_000_000
"""Bytes of what `/embed_all` answers to it, at least."""
CLIENTS = 8
COMPUTED = b'te_request_success{method="batch"} %d\n' % CLIENTS


def test_large_answers_that_nobody_reads_do_not_add_up() -> None:
    """Most connections are ended, and the answers were never in memory together."""
    few = WIDE.replace("payload_limit=", f"max_queued_bytes={LARGE}, payload_limit=")
    with server(few) as target, ExitStack() as stack:
        before, files = target.memory(), Path(f"/proc/{target.process.pid}/fd")
        already = len(list(files.iterdir()))
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", target.port), PATIENCE))
            client.sendall(post(BODY).replace(b"/embed ", b"/embed_all "))
        until(lambda: COMPUTED in ask(target.port, "GET", "/metrics")[1])
        until(lambda: len(list(files.iterdir())) < already + CLIENTS // 2)
        status = Path(f"/proc/{target.process.pid}/status").read_text()
        peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
        assert peak - before < CLIENTS * ANSWER


def test_large_answers_are_right() -> None:
    """Several at once, on the routes that render in pieces; each instance of `/vertex` gives what its route gives."""
    inputs = ["1 2 3"] * 8
    with Client(fake_model(FakeEngine(dimensions=10_000))) as client:
        plain = json.dumps({"inputs": inputs}).encode()
        vertex = json.dumps({"instances": [{"inputs": inputs}] * 3}).encode()

        async def ask() -> None:
            first, second, several = await asyncio.gather(
                client.answer("POST", "/embed", [plain], JSON),
                client.answer("POST", "/embed", [plain], JSON),
                client.answer("POST", "/vertex", [vertex], JSON),
            )
            assert first.body == second.body
            assert several.json == {"predictions": [first.json] * 3}

        client.run(ask())


class Ends(Connection):
    """A connection that is only paced."""

    def __init__(self) -> None:
        self.sender: Sender

    def pause_writing(self) -> None:
        self.sender.pause()

    def resume_writing(self) -> None:
        self.sender.resume()


def test_a_large_answer_counts_while_those_before_it_are_read() -> None:
    async def run() -> None:
        connection, unsent = Ends(), UnsentAnswers(None)
        transport = Transport(connection)
        connection.sender = sender = Sender(transport, connection, unsent)
        await sender.send(b"", deque([b"x" * LARGE] * 2))
        assert unsent.used == 0, "it was read at once"
        transport.takes = len(transport.written)
        await sender.send(b"", deque([b"x" * (MOST_UNSENT + 1)]))
        sending = asyncio.create_task(sender.send(b"", deque([b"x" * LARGE] * 2)))
        await asyncio.sleep(0)
        assert unsent.used == MOST_UNSENT + 1 + 2 * LARGE
        transport.take(MOST_UNSENT + 1)
        assert unsent.used == 2 * LARGE
        transport.takes = float("inf")
        await sending
        assert unsent.used == 0

    asyncio.run(run())


def test_memory_is_given_back_when_it_is_quiet() -> None:
    unsent, reader, other = UnsentAnswers(None), Ends(), Ends()
    unsent.hold(reader, KEPT)
    unsent.hold(reader, 1)  # nearly read
    assert not unsent.should_trim()
    unsent.release(reader)
    assert not unsent.should_trim(), "more may follow"
    unsent.hold(other, 1)
    unsent.release(other)
    assert not unsent.should_trim()
    assert unsent.should_trim()
    assert not unsent.should_trim(), "it is done"
