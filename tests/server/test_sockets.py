"""Ports, names, addresses and Unix sockets: what is taken, what is free, and what is given back."""

from __future__ import annotations

import logging
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes import PATIENCE
from tests.server.test_serve import LOCAL, ask, port, serve_and_visit, with_server
from text_embeddings_inference.errors import SettingsError, StartError
from text_embeddings_inference.server import sockets as bound
from text_embeddings_inference.server.sockets import Sockets
from text_embeddings_inference.settings import Settings


@pytest.mark.parametrize(
    ("option", "message", "cause"),
    [
        ("port", "Could not bind TCP Listener on 127.0.0.1:{}", "Address already in use (os error 98)"),
        ("grpc_port", "Could not bind gRPC on 127.0.0.1:{}", "Address already in use (os error 98)"),
        (
            "prometheus_port",
            "failed to build prometheus recorder",
            "failed to create HTTP listener: Address already in use (os error 98)",
        ),
    ],
)
def test_port_in_use(option: str, message: str, cause: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            Sockets.bind(Settings.of(**(LOCAL | {option: number})))
    assert caught.value.args[0] == message.format(number)
    assert str(caught.value.__cause__) == cause


@pytest.mark.parametrize("option", ["port", "grpc_port"])
def test_default_port_of_the_metrics_is_not_needed(
    option: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another server may have it, or this one for something else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = port(taken)
    monkeypatch.setattr(bound, "METRICS_PORT", number)

    def visit(sockets: Sockets) -> None:
        assert sockets.metrics is None
        assert b"te_request_count" in answered(sockets)

    def answered(sockets: Sockets) -> bytes:
        assert ask(port(sockets.http), "POST", "/embed", b'{"inputs": "1"}')[0] == 200
        return ask(port(sockets.http), "GET", "/metrics")[1]

    with_server(visit, **{option: number, "prometheus_port": None})
    assert f"port {number} is not free" in caplog.text
    assert "--prometheus-port" in caplog.text


def test_default_port_of_the_metrics_is_taken_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As by another server that started at the same time: both could bind it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = port(probe)
    monkeypatch.setattr(bound, "METRICS_PORT", number)
    settings = Settings.of(**(LOCAL | {"prometheus_port": None}))
    with closing(Sockets.bind(settings)) as sockets, socket.create_server(("127.0.0.1", number)):
        serve_and_visit(lambda sockets: None, settings, sockets)
    assert f"port {number} is not free" in caplog.text


def test_nothing_stays_bound_after_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        number = port(free)
        free.close()
        with pytest.raises(StartError):
            Sockets.bind(Settings.of(**(LOCAL | {"port": number, "prometheus_port": port(taken)})))
        socket.create_server(("127.0.0.1", number)).close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")


@needs_ipv6
@pytest.mark.parametrize(("hostname", "reached"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_ipv6(hostname: str, reached: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def visit(sockets: Sockets) -> None:
        assert sockets.metrics is not None
        (grpc,) = (int(text.rpartition(":")[2]) for text in caplog.messages if "gRPC" in text)
        for address in reached:
            for number in (port(sockets.http), port(sockets.metrics), grpc):
                socket.create_connection((address, number), PATIENCE).close()

    with caplog.at_level(logging.INFO, "text_embeddings_inference"):
        with_server(visit, hostname=hostname, grpc_port=0)
    assert f"Starting HTTP server: [{hostname}]:" in caplog.text
    assert f"Starting gRPC server: [{hostname}]:" in caplog.text


def test_name_of_this_machine() -> None:
    with closing(Sockets.bind(Settings.of(**(LOCAL | {"hostname": "localhost"})))) as sockets:
        assert sockets.place.startswith(("127.0.0.1:", "[::1]:"))


def test_name_of_no_machine() -> None:
    with pytest.raises(SettingsError, match=r"no address has this name\nhint: give an IP address"):
        Sockets.bind(Settings.of(**(LOCAL | {"hostname": "nowhere.invalid"})))


def test_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    def visit(sockets: Sockets) -> None:
        assert sockets.place == str(path)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")

    with_server(visit, listen_uds=path)
    assert not path.exists()


def test_unix_socket_in_use_or_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        with pytest.raises(StartError, match="Could not bind"):
            Sockets.bind(Settings.of(**LOCAL, listen_uds=path))
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StartError, match="Could not bind"):
        Sockets.bind(Settings.of(**LOCAL, listen_uds=tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"
