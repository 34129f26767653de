"""Connections to the gRPC port that say nothing, more than the process may have descriptors."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc

from tests.fakes import PATIENCE
from text_embeddings_inference.server.grpc import tei_pb2 as tei

SERVER = """
import logging, resource, sys
from tests.fakes import fake_model
from text_embeddings_inference.server.serve import serve
from text_embeddings_inference.settings import Settings

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
given = dict(model_id="fake", hostname="127.0.0.1", port=0, prometheus_port=0, grpc_port=0, api_key=("key",))
serve({"fake": fake_model()}, Settings.of(**given))
"""
CONNECTIONS = 600


def ports(log: str) -> tuple[int, int]:
    """Of HTTP and gRPC, as the server's log names them."""
    found = dict(re.findall(r"Starting (\w+) server: 127.0.0.1:(\d+)", log))
    return int(found["HTTP"]), int(found["gRPC"])


def test_silent_connections_leave_descriptors_for_others() -> None:
    command = [sys.executable, "-c", SERVER]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            log = ""
            while "Ready" not in log:
                line = process.stdout.readline()
                assert line, log
                log += line
            http, rpc = ports(log)
            visit(http, rpc)
        finally:
            process.terminate()
            process.stdout.close()
    assert process.returncode == 0


def visit(http: int, rpc: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{rpc}") as before:
        embed(before)
        idle = [socket.create_connection(("127.0.0.1", rpc), PATIENCE) for _ in range(CONNECTIONS)]
        for _ in range(20):
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/health", timeout=PATIENCE) as answer:
                assert answer.status == 200
            embed(before)
        for connection in idle:
            connection.close()
    with grpc.insecure_channel(f"127.0.0.1:{rpc}") as after:
        embed(after)


def embed(channel: grpc.Channel) -> None:
    call = channel.unary_unary(
        "/tei.v1.Embed/Embed",
        request_serializer=tei.EmbedRequest.SerializeToString,
        response_deserializer=tei.EmbedResponse.FromString,
    )
    metadata = (("authorization", "Bearer key"),)
    assert call(tei.EmbedRequest(inputs="1"), metadata=metadata, timeout=PATIENCE, wait_for_ready=True).embeddings
