"""The options of text-embeddings-inference 1.9.3, and those of our own that belong beside them.

Flag and variable follow from the field's name: `max_batch_tokens` is `--max-batch-tokens` and `MAX_BATCH_TOKENS`.
"""

# ruff: noqa: RUF009 - `option` makes dataclass fields

from __future__ import annotations

from dataclasses import dataclass

from ..machine import usable_cpus
from ..types import Pooling
from .environment import Environment
from .options import Boolean, Choice, Flag, Integer, Limit, OptionalText, Text, option

MODEL = "Model"
PROMPTS = "Prompts"
LIMITS = "Serving limits"
SERVER = "Server"
HUB = "Hub"
TELEMETRY = "Logs, metrics and traces"


def default_tokenization_workers() -> int:
    return max(1, min(64, usable_cpus() - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSettings(Environment):
    """Which model is served, how inputs are taken, and where the server is found."""

    model_id: str = option(
        Text(),
        MODEL,
        "A directory that holds a model, or the id of a model on the Hub",
        details="A directory is served as it is, without any network; anything else is taken for a Hub id.\n"
        "Examples: sentence-transformers/all-MiniLM-L6-v2, ./my-model",
    )
    revision: str | None = option(
        Text(),
        MODEL,
        "Branch, tag, `refs/pr/N` or commit of the model on the Hub",
        details="Shown by `/info` as `model_sha`, for a local model too.",
        default=None,
        default_text="main",
    )
    served_model_name: str | None = option(
        Text(),
        MODEL,
        "Name of the model in OpenAI answers and in `/info`",
        default=None,
        default_text="the model id",
    )
    pooling: Pooling | None = option(
        Choice({p.replace("_", "-"): p for p in (Pooling.CLS, Pooling.MEAN, Pooling.SPLADE, Pooling.LAST_TOKEN)}),
        MODEL,
        "How the vectors of a text's tokens become one vector",
        details="Overrides the model's own `1_Pooling/config.json`. Ignored, with a warning, for classifiers and "
        "rerankers.",
        default=None,
        default_text="the model's",
    )
    dense_path: str | None = option(
        Text(),
        MODEL,
        "Folder of the Dense module to use in place of the one `modules.json` lists",
        details="For models with several of them, as `2_Dense_1024`; needs exactly one Dense module in `modules.json`.",
        default=None,
    )
    onnx_file: str | None = option(
        Text(),
        MODEL,
        "ONNX graph of the model to run, as `onnx/model_quantized.onnx`",
        details="A path inside of the model's folder. Without it, `model.onnx` or `onnx/model.onnx` is run if there "
        "are no weights in another format. Runs on OpenVINO. Not in text-embeddings-inference 1.9.3.",
        default=None,
    )

    trust_remote_code: bool = option(
        Flag(),
        MODEL,
        "Let Transformers run the Python code that lies beside the weights of a model it does not know",
        details="Only for models that are run by Transformers, because no architecture of this server fits them, and "
        "only from a folder. That code can do anything this process may. Not in text-embeddings-inference 1.9.3.",
        default=False,
    )

    explain: bool | str = option(
        OptionalText(),
        MODEL,
        "Say how the model would be served, or all that stands in the way, and stop",
        details="Reads a folder, or of a model on the Hub everything but its weights. The value is the model, in place "
        "of `--model-id`; all other options mean what they mean for a server. As JSON with `--json-output`. The exit "
        "status is 0 if the model would be served, else 1. Not in text-embeddings-inference 1.9.3.",
        default=False,
        gives="model_id",
    )

    default_prompt_name: str | None = option(
        Text(),
        PROMPTS,
        "Name of the prompt put before every input that names none",
        details="A key of `prompts` in the model's `config_sentence_transformers.json`. Example: with the name `query` "
        'and `{"query": "query: "}` there, "What is Deep Learning?" is embedded as "query: What is Deep Learning?". '
        "Cannot be used with `--default-prompt`.",
        default=None,
        conflicts=("default_prompt",),
    )
    default_prompt: str | None = option(
        Text(),
        PROMPTS,
        "Text put before every input that names no prompt",
        details="Cannot be used with `--default-prompt-name`.",
        default=None,
    )

    tokenization_workers: int = option(
        Integer(1),
        LIMITS,
        "Threads that tokenize",
        default_factory=default_tokenization_workers,
        default_text="usable CPUs minus 1, from 1 to 64",
    )
    max_concurrent_requests: int = option(
        Integer(1),
        LIMITS,
        "Most inputs that are answered at the same time",
        details="Each input of a batch counts. What comes on top is refused at once with status 429, so that clients "
        "see the pressure instead of a growing queue.",
        default=512,
    )
    max_batch_tokens: int = option(
        Integer(1),
        LIMITS,
        "Most tokens the engine computes in one batch, padding included",
        details="With 1000, a batch holds ten inputs of 100 tokens, or one of 1000. Larger batches use the hardware "
        "better, until it is busy or its memory full. One input can't be longer either, see `--auto-truncate`.",
        default=16384,
    )
    max_batch_requests: int | None = option(
        Limit(),
        LIMITS,
        "Most inputs in one batch of the engine; 0: no limit",
        default=None,
        default_text="no limit",
    )
    max_client_batch_size: int = option(Integer(), LIMITS, "Most inputs in one request", default=32)
    auto_truncate: bool = option(
        Boolean(),
        LIMITS,
        "Cut inputs that are too long, where a request does not say",
        details="Also at the start: if the model takes longer inputs than `--max-batch-tokens`, true lowers the limit "
        "of an input to that, with a warning; false refuses to start.",
        default=True,
    )
    payload_limit: int = option(Integer(), LIMITS, "Largest body of an HTTP request, in bytes", default=2_000_000)

    hostname: str = option(
        Text(),
        SERVER,
        "IP address to listen on, v4 or v6",
        details="What is no address (containers set HOSTNAME to their name) means all addresses, with a warning.",
        default="0.0.0.0",
    )
    port: int = option(Integer(0, 65535), SERVER, "Port to listen on; 0: any free one", default=3000, short="-p")
    uds_path: str = option(
        Text(),
        SERVER,
        "Taken for compatibility and ignored, with a warning: there is no separate backend process",
        details="To serve HTTP on a Unix socket use `--listen-uds`.",
        default="/tmp/text-embeddings-inference-server",
    )
    api_key: tuple[str, ...] = option(
        Text(),
        SERVER,
        "Key that clients must send, as `Authorization: Bearer <key>`",
        details="Health, metrics and documentation need none. May be given several times on the command line: any of "
        "the keys opens. The variable holds one key, taken as it is.",
        default=(),
        repeatable=True,
        secret=True,
    )
    cors_allow_origin: tuple[str, ...] = option(
        Text(),
        SERVER,
        "Origin from which browsers may call; may be given several times",
        details="Example: --cors-allow-origin https://a.example --cors-allow-origin https://b.example",
        default=(),
        default_text="any",
        repeatable=True,
    )

    hf_token: str | None = option(
        Text(),
        HUB,
        "Token for the Hub",
        details="Without it the file `token` in HF_HOME is used, if there is one.",
        default=None,
        secret=True,
        conflicts=("hf_api_token",),
    )
    hf_api_token: str | None = option(
        Text(), HUB, "Deprecated: use `--hf-token`", default=None, secret=True, hidden=True
    )
    huggingface_hub_cache: str | None = option(
        Text(), HUB, "Folder of the Hub cache", default=None, default_text="$HF_HOME/hub"
    )

    json_output: bool = option(Flag(), TELEMETRY, "Write logs as JSON, one object per line", default=False)
    disable_spans: bool = option(Flag(), TELEMETRY, "Leave span data out of JSON logs", default=False)
    otlp_endpoint: str | None = option(
        Text(),
        TELEMETRY,
        "OTLP collector to which traces are sent",
        details="Example: http://localhost:4317. By gRPC; with OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf by HTTP. The "
        "variables OTEL_EXPORTER_OTLP_* win over the option; they, OTEL_BSP_* and OTEL_TRACES_SAMPLER (default: "
        "`always_on`) mean what OpenTelemetry says.",
        default=None,
    )
    otlp_service_name: str = option(
        Text(), TELEMETRY, "`service.name` of exported traces", default="text-embeddings-inference.server"
    )
    prometheus_port: int = option(
        Integer(0, 65535),
        TELEMETRY,
        "Port that serves the metrics alone",
        details="They are at `/metrics` of the main port as well.",
        default=9000,
    )
