"""Where traces go: the option, and the variables that win over it."""

import pytest

from text_embeddings_inference.errors import SettingsError
from text_embeddings_inference.telemetry.otel_variables import Collector

OPTION = "http://option:4317"
ENDPOINT, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
HTTP = {PROTOCOL: "http/protobuf"}


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, OPTION),
        ({ENDPOINT: "http://all"}, "http://all"),
        ({ENDPOINT: "http://all", TRACES: "https://traces"}, "https://traces"),
        ({ENDPOINT: ""}, OPTION),
        (HTTP, f"{OPTION}/v1/traces"),
        (HTTP | {ENDPOINT: "http://all/base/"}, "http://all/base/v1/traces"),
        (HTTP | {ENDPOINT: "http://all/v1/traces"}, "http://all/v1/traces"),
        (HTTP | {TRACES: "http://traces/as/it/is"}, "http://traces/as/it/is"),
    ],
)
def test_url(environ: dict[str, str], url: str) -> None:
    collector = Collector.of(OPTION, environ)
    assert collector == Collector("http/protobuf" if PROTOCOL in environ else "grpc", url)


@pytest.mark.parametrize("endpoint", ["", "localhost", "localhost:4317", "ftp://host", "http://"])
def test_what_is_no_url(endpoint: str) -> None:
    assert Collector.of(endpoint, {}) is None


def test_protocol_of_traces_wins() -> None:
    collector = Collector.of(OPTION, HTTP | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"})
    assert collector == Collector("grpc", OPTION)


def test_unknown_protocol() -> None:
    with pytest.raises(SettingsError, match=r"'http/json' for OTEL_EXPORTER_OTLP_PROTOCOL\n.*grpc, http/protobuf"):
        Collector.of(OPTION, {PROTOCOL: "http/json"})
