"""What is logged, counted and traced, and where that goes."""

from __future__ import annotations

from dataclasses import dataclass

from .options import TELEMETRY, Flag, Integer, Option, Text, Variable

METRICS_PORT = 9000
"""Where metrics are served if no other port is given and this one is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions:
    """What is logged, counted and traced, and where that goes."""

    json_output: bool = Option(Flag(), TELEMETRY, "Write logs as JSON, one object per line").field(False)
    disable_spans: bool = Option(Flag(), TELEMETRY, "Leave span data out of JSON logs").field(False)
    otlp_endpoint: str | None = Option(
        Text(),
        TELEMETRY,
        "OTLP collector to which traces are sent",
        details="Example: http://localhost:4317. By gRPC; with OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf by HTTP. The "
        "variables OTEL_EXPORTER_OTLP_* win over the option; they, OTEL_BSP_* and OTEL_TRACES_SAMPLER (default: "
        "`always_on`) mean what OpenTelemetry says.",
    ).field(None)
    otlp_service_name: str = Option(Text(), TELEMETRY, "`service.name` of exported traces").field(
        "text-embeddings-inference.server"
    )
    prometheus_port: int | None = Option(
        Integer(0, 65535),
        TELEMETRY,
        "Port that serves the metrics alone",
        details="They are at `/metrics` of the main port as well. Only a port that is given must be free.",
        default_text=str(METRICS_PORT),
    ).field(None)
    log_level: str | None = Variable(
        "LOG_LEVEL",
        "What is logged: off, error, warn, info, debug or trace, or target=level, several separated by commas. "
        "Empty: errors. [default: RUST_LOG]",
        empty_counts=True,
    ).field(None)
    rust_log: str = Variable("RUST_LOG", "The same, where LOG_LEVEL is not set. [default: info]").field("info")
    color: bool = Variable(
        "NO_COLOR", "Not empty: text logs without colours.", parse=lambda text: not text, types=(bool,)
    ).field(True)
