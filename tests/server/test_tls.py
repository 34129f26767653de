"""Certificates: of HTTP and gRPC, read again while connections go on, and those that can't be used."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import signal
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from tests.fakes import PATIENCE
from tests.server.test_serve import LOCAL, port, with_server
from text_embeddings_inference.errors import StartError
from text_embeddings_inference.server.sockets import Sockets
from text_embeddings_inference.settings import Settings

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")


def make_certificate(folder: Path, *, password: str = "", algorithm: str = "ec") -> dict[str, Path]:
    """The options that name a new certificate of its own, for 127.0.0.1."""
    files = {"tls_key": folder / "key.pem", "tls_cert": folder / "certificate.pem"}
    command = ["openssl", "req", "-x509", "-newkey", algorithm, "-days", "1", "-subj", "/CN=localhost"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if algorithm == "ec" else []
    command += ["-passout", f"pass:{password}"] if password else ["-nodes"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files["tls_key"], "-out", files["tls_cert"]]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return files


def served_certificate(number: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", number), timeout=PATIENCE))


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@needs_openssl
def test_tls(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)

    def visit(sockets: Sockets) -> None:
        context = ssl.create_default_context(cafile=str(files["tls_cert"]))
        connection = http.client.HTTPSConnection("127.0.0.1", port(sockets.http), timeout=PATIENCE, context=context)
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
        connection.close()

    with_server(visit, **files)


@needs_openssl
def test_an_idle_client_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """As in a pool of connections: nothing is read, so the end of TLS is never answered."""
    files = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(files["tls_cert"]))
    pool: list[http.client.HTTPSConnection] = []

    def visit(sockets: Sockets) -> None:
        pool.append(http.client.HTTPSConnection("127.0.0.1", port(sockets.http), timeout=PATIENCE, context=context))
        pool[0].request("GET", "/health")
        assert pool[0].getresponse().read() == b""

    late = threading.Event()
    watch = threading.Timer(20, late.set)  # where the client's answer was waited for, it took 30 seconds
    watch.start()
    with_server(visit, **files)
    watch.cancel()
    assert not late.is_set()
    pool[0].close()


@needs_openssl
def test_sighup_reads_certificates_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also of another algorithm; connections stay, and so does the certificate where the new one can't be used."""
    files = make_certificate(tmp_path)

    def hang_up(expected: str) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(PATIENCE * 100):
            if expected in caplog.text:
                return
            threading.Event().wait(0.01)
        raise TimeoutError(expected)

    def visit(sockets: Sockets) -> None:
        (grpc,) = (int(text.rpartition(":")[2]) for text in caplog.messages if "gRPC" in text)
        ports = (port(sockets.http), grpc)
        before = der(files["tls_cert"])
        assert [served_certificate(number) for number in ports] == [before] * 2
        context = ssl.create_default_context(cafile=str(files["tls_cert"]))
        kept = http.client.HTTPSConnection("127.0.0.1", port(sockets.http), timeout=PATIENCE, context=context)
        kept.connect()
        files["tls_key"].write_text("no key")
        hang_up("the old certificate stays")
        assert [served_certificate(number) for number in ports] == [before] * 2
        make_certificate(tmp_path, algorithm="rsa:2048")
        hang_up("new connections are served with")
        after = der(files["tls_cert"])
        assert after != before
        assert [served_certificate(number) for number in ports] == [after] * 2
        kept.request("GET", "/health")
        assert kept.getresponse().status == 200
        kept.close()

    with caplog.at_level(logging.INFO, "text_embeddings_inference"):
        with_server(visit, grpc_port=0, **files)


def test_bad_certificate_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        settings = Settings.of(**LOCAL, tls_cert=tmp_path / name, tls_key=tmp_path / name)
        with pytest.raises(StartError, match="can't use the certificate"):
            Sockets.bind(settings)


@needs_openssl
def test_encrypted_key_ends_the_start(tmp_path: Path) -> None:
    """OpenSSL would ask for its password on the terminal, and wait."""
    with pytest.raises(StartError) as caught:
        Sockets.bind(Settings.of(**LOCAL, **make_certificate(tmp_path, password="s3cret")))
    assert "the key is encrypted" in str(caught.value.__cause__)
