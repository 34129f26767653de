"""Where the gRPC server listens: addresses, TLS, and connections that are ended by the address of their other end."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from contextlib import closing, suppress
from pathlib import Path

import grpc
import pytest

from tests.fakes import PATIENCE
from tests.server.grpc.calling import Stub, calling, run
from tests.server.grpc.http2 import Deaf
from tests.server.test_tls import make_certificate, needs_openssl
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.server.grpc import server, strangers
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.server.grpc.sockets import address, disconnect, peers
from text_embeddings_inference.server.grpc.strangers import Strangers


@pytest.mark.parametrize(("hostname", "asked"), [("::1", "[::1]"), ("::", "[::1]"), ("0.0.0.0", "127.0.0.1")])
def test_addresses(hostname: str, asked: str) -> None:
    async def test() -> None:
        async with (
            calling(hostname=hostname) as stub,
            grpc.aio.insecure_channel(f"{asked}:{stub.server.port}") as channel,
        ):
            assert (await Stub(channel, tei, stub.server)("Info.Info", tei.InfoRequest())).model_id == "fake/model"

    run(test())


def test_a_port_in_use() -> None:
    async def test(port: int) -> None:
        async with calling(grpc_port=port):
            pytest.fail("two servers on one port")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="Could not bind gRPC"):
            run(test(taken.getsockname()[1]))


def test_a_server_that_could_not_start_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """grpcio logs a server that is collected before it has stopped, and who keeps that record crashes."""
    caplog.set_level(logging.DEBUG)
    test_a_port_in_use()
    gc.collect()
    assert not [record for record in caplog.records if "__dealloc__" in record.msg]


# --- connections that say nothing, and those that are ended -----------------------------------------------------------


def wait_for_end(connection: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while connection.recv(100):  # the server may have begun to speak HTTP/2
            pass


async def silent_connections(channel: grpc.aio.Channel, stub: Stub) -> None:
    """More than the server takes: a client that is there goes on, and when they have ended another may come."""
    known = Stub(channel, tei, stub.server)
    await known("Info.Info", tei.InfoRequest())
    address = ("127.0.0.1", stub.server.port)
    idle = [await asyncio.to_thread(socket.create_connection, address, PATIENCE) for _ in range(30)]
    await known("Info.Info", tei.InfoRequest())
    for connection in idle:
        with closing(connection):
            await asyncio.to_thread(wait_for_end, connection)


def test_silent_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 300)

    async def test() -> None:
        async with calling(connections=5) as stub:
            await silent_connections(stub.channel, stub)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{stub.server.port}") as channel:
                assert await Stub(channel, tei, stub.server)("Info.Info", tei.InfoRequest())

    run(test())


@needs_openssl
def test_silent_handshakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 300)
    certificate = make_certificate(tmp_path)
    trusted = grpc.ssl_channel_credentials(certificate["tls_cert"].read_bytes())

    async def test() -> None:
        async with calling(connections=5, **certificate) as stub:
            for _ in range(2):
                async with grpc.aio.secure_channel(f"127.0.0.1:{stub.server.port}", trusted) as channel:
                    await silent_connections(channel, stub)

    run(test())


def test_connections_without_a_key_make_place_for_those_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who say HTTP/2 and nothing more, and those whose key is wrong; a client that was let in may be idle."""
    monkeypatch.setattr(strangers, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(strangers, "STRANGE_S", 0.1)
    key = (("authorization", "Bearer key"),)

    async def test() -> None:
        async with calling(connections=4, api_key=("key",)) as stub:
            await stub("Info.Info", tei.InfoRequest(), metadata=key)
            crowd = [await Deaf.connect(stub.server.port) for _ in range(3)]
            crowd[0].call("/tei.v1.Info/Info", b"")
            for each in crowd:
                await each.ended()
                each.close()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{stub.server.port}") as channel:
                assert await Stub(channel, tei, stub.server)("Info.Info", tei.InfoRequest(), metadata=key)
            assert stub.channel.get_state() is grpc.ChannelConnectivity.READY

    run(test())


def test_connections_without_a_key_stay_where_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Strangers(4)
    monkeypatch.setattr(strangers, "STRANGE_S", 0)
    given.know("ipv4:1.1.1.1:1")
    assert given.due({"1.1.1.1:1", "1.1.1.1:2"}, 0) == set()
    assert given.due({"1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3"}, 0) == {"1.1.1.1:2", "1.1.1.1:3"}


@pytest.mark.parametrize(
    ("listens", "asked", "peer"),
    [
        ("127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1"),
        ("::1", "::1", "ipv6:%5B::1%5D"),
        ("::", "127.0.0.1", "ipv4:127.0.0.1"),
    ],
)
def test_disconnect(listens: str, asked: str, peer: str) -> None:
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with closing(socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::")) as listening:
        port = listening.getsockname()[1]
        pairs = [(socket.create_connection((asked, port), PATIENCE), listening.accept()[0]) for _ in range(2)]
        ours = pairs[0][0].getsockname()[1]
        ended = {address(f"{peer}:{ours}")}
        assert ended < peers(port)
        disconnect(ended, port + 1)  # of another server
        disconnect(ended, port)
        wait_for_end(pairs[0][0])
        pairs[1][1].send(b"x")
        assert pairs[1][0].recv(1) == b"x"
        for pair in pairs:
            for end in pair:
                end.close()
