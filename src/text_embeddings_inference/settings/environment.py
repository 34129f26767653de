"""The settings that come from the environment only: they have no option."""

# ruff: noqa: RUF009 - `variable` makes dataclass fields

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .options import variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Variables of the environment, each written once: name, default and help text."""

    log_level: str | None = variable(
        "LOG_LEVEL",
        "What is logged: off, error, warn, info, debug or trace, or target=level, several separated by commas. "
        "Empty: errors. [default: RUST_LOG]",
        default=None,
        empty_counts=True,
    )
    rust_log: str = variable("RUST_LOG", "The same, where LOG_LEVEL is not set. [default: info]", default="info")
    color: bool = variable(
        "NO_COLOR", "Not empty: text logs without colours.", default=True, parse=lambda text: not text
    )
    task: str | None = variable(
        "TASK", "sentence-similarity: `POST /` of an embedding model does what `/similarity` does.", default=None
    )
    grpc_max_parallel_stream_requests: int = variable(
        "GRPC_MAX_PARALLEL_STREAM_REQUESTS",
        "Items of a gRPC stream that are read ahead of the answers. [default: 1024]",
        default=1024,
        parse=lambda text: int(text) if text.isdecimal() and int(text) else 1024,
    )
    hf_home: Path = variable(
        "HF_HOME",
        "Folder of the Hub's cache and token. [default: ~/.cache/huggingface]",
        default=Path("~/.cache/huggingface"),
        parse=Path,
    )
    hf_endpoint: str = variable(
        "HF_ENDPOINT", "Address of the Hub. [default: https://huggingface.co]", default="https://huggingface.co"
    )
    hf_hub_user_agent_origin: str | None = variable(
        "HF_HUB_USER_AGENT_ORIGIN", "Told to the Hub as the origin of requests.", default=None
    )
    hf_hub_offline: bool = variable(
        "HF_HUB_OFFLINE",
        "1, true, yes or on: use what the Hub cache holds, without any network.",
        default=False,
        parse=lambda text: text.lower() in ("1", "true", "yes", "on"),
    )
