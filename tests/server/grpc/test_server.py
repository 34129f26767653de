"""Where the gRPC server listens: addresses, TLS, and connections that are ended by the address of their other end."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.fakes import PATIENCE
from tests.server.grpc.calling import Stub, calling, run
from tests.server.grpc.test_limits import wait_for_end
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.server.grpc.sockets import disconnect


@pytest.mark.parametrize(("hostname", "asked"), [("::1", "[::1]"), ("::", "[::1]"), ("0.0.0.0", "127.0.0.1")])
def test_addresses(hostname: str, asked: str) -> None:
    async def test() -> None:
        async with (
            calling(hostname=hostname) as stub,
            grpc.aio.insecure_channel(f"{asked}:{stub.server.port}") as channel,
        ):
            assert (await Stub(channel, tei, stub.server)("Info.Info", tei.InfoRequest())).model_id == "fake/model"

    run(test())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return {"tls_cert": chain, "tls_key": key}


def test_tls(certificate: dict[str, Path]) -> None:
    trusted = grpc.ssl_channel_credentials(certificate["tls_cert"].read_bytes())

    async def test() -> None:
        async with (
            calling(**certificate) as stub,
            grpc.aio.secure_channel(f"127.0.0.1:{stub.server.port}", trusted) as channel,
        ):
            assert (await Stub(channel, tei, stub.server)("Info.Info", tei.InfoRequest())).model_id == "fake/model"

    run(test())


def test_a_certificate_that_is_none(certificate: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")

    async def test() -> None:
        async with calling(tls_cert=tmp_path / "empty", tls_key=certificate["tls_key"]):
            pytest.fail("a server without a certificate")

    with pytest.raises(StartError, match=r"can't use the certificate .*empty"):
        run(test())


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
    with closing(socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::")) as server:
        port = server.getsockname()[1]
        pairs = [(socket.create_connection((asked, port), PATIENCE), server.accept()[0]) for _ in range(2)]
        ours = pairs[0][0].getsockname()[1]
        disconnect(f"{peer}:{ours}", port + 1)  # of another server
        disconnect(f"{peer}:{ours}", port)
        wait_for_end(pairs[0][0])
        pairs[1][1].send(b"x")
        assert pairs[1][0].recv(1) == b"x"
        for pair in pairs:
            for end in pair:
                end.close()
