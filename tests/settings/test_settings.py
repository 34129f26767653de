"""The settings themselves: defaults, the environment, what is derived, and the pinned help."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from text_embeddings_inference.errors import SettingsError
from text_embeddings_inference.machine import usable_cpus
from text_embeddings_inference.settings import Settings, command_line
from text_embeddings_inference.settings.options import OPTION, VARIABLE, File, OptionalText
from text_embeddings_inference.settings.settings import ADDED, PARTS
from text_embeddings_inference.settings.telemetry import METRICS_PORT
from text_embeddings_inference.types import Pooling

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"


def parse(*argv: str, **environ: str) -> Settings:
    return Settings.parse(["--model-id", "m", *argv], environ)


def test_defaults() -> None:
    settings = parse()
    assert settings == Settings.of(model_id="m")
    assert settings.limits.max_concurrent_requests == 512
    assert settings.limits.token_limit == 16384
    assert settings.limits.max_batch_requests is None
    assert settings.limits.max_client_batch_size == 32
    assert settings.limits.payload_limit == 2_000_000
    assert (settings.server.address, settings.server.port) == ("0.0.0.0", 3000)
    assert (settings.telemetry.prometheus_port, METRICS_PORT) == (None, 9000)
    assert settings.model.auto_truncate
    assert settings.server.api_key == ()
    assert (settings.engine.engine, settings.engine.dtype, settings.engine.streams) == ("auto", "auto", None)
    assert settings.engine.threads == usable_cpus()
    assert settings.limits.tokenization_workers == max(1, min(64, usable_cpus() - 1))
    assert settings.warnings() == []


def test_every_field_is_declared_once() -> None:
    declared = [field for part in PARTS.values() for field in dataclasses.fields(part)]
    assert all(field.metadata.keys() & {OPTION, VARIABLE} for field in declared)
    assert len({field.name for field in declared}) == len(declared)


def test_settings_by_name() -> None:
    assert Settings.of(model_id="m", port=0).server.port == 0
    with pytest.raises(TypeError, match="no option 'prot'"):
        Settings.of(model_id="m", prot=0)


@pytest.mark.parametrize("size", ["short", "long"])
def test_help_is_pinned(size: str) -> None:
    """To renew: text-embeddings-router -h > tests/snapshots/help-short.txt, --help > help-long.txt."""
    expected = (SNAPSHOTS / f"help-{size}.txt").read_text()
    assert command_line().help(long=size == "long") + "\n" == expected


def test_values() -> None:
    settings = parse("--pooling", "last-token", "--streams=2", "--tls-cert", "c.pem", "--tls-key", "k.pem")
    assert settings.model.pooling is Pooling.LAST_TOKEN
    assert settings.engine.streams == 2
    assert (settings.server.tls_cert, settings.server.tls_key) == (Path("c.pem"), Path("k.pem"))
    assert parse("--max-batch-requests", "8").limits.max_batch_requests == 8
    assert parse("--max-batch-requests", "0").limits.max_batch_requests is None
    assert parse("--streams", "auto", "--pooling", "splade").model.pooling is Pooling.SPLADE


def test_api_keys_are_taken_byte_for_byte() -> None:
    assert parse("--api-key", "a,b", "--api-key", " c").server.api_key == ("a,b", " c")
    assert parse(API_KEY="a,b").server.api_key == ("a,b",)
    assert parse(API_KEY="").server.api_key == ("",), "an empty key locks everybody out, it does not let everybody in"
    assert parse("--api-key", "a", API_KEY="b").server.api_key == ("a",)


@pytest.mark.parametrize(
    ("hostname", "address"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "0.0.0.0"), ("web-0", "0.0.0.0"), ("", "0.0.0.0")],
)
def test_variable_hostname_that_is_no_address_means_all(hostname: str, address: str) -> None:
    settings = parse(HOSTNAME=hostname)
    assert settings.server.address == address
    assert len(settings.warnings()) == (hostname != address)
    assert all("HOSTNAME" in text and "defaulting to 0.0.0.0" in text for text in settings.warnings())


def test_flag_hostname_may_be_a_name() -> None:
    assert parse("--hostname", "localhost").server.address in ("127.0.0.1", "::1")
    with pytest.raises(SettingsError, match=r"'nowhere\.invalid'.*\nhint: "):
        _ = parse("--hostname", "nowhere.invalid").server.address


@pytest.mark.parametrize("text", ["tcp://10.0.1.2:50051", "udp://10.0.1.2:53"])
def test_service_links_of_kubernetes_are_ignored(text: str) -> None:
    """In a pod beside services named `grpc` and `prometheus`."""
    settings = parse(GRPC_PORT=text, PROMETHEUS_PORT=text, GRPC_SERVICE_HOST="10.0.1.2")
    assert (settings.server.grpc_port, settings.telemetry.prometheus_port) == (None, None)
    assert [warning.split()[2] for warning in settings.warnings()] == ["PROMETHEUS_PORT", "GRPC_PORT"]
    assert all(text in warning for warning in settings.warnings())


CONTRACT = {
    *("model_id", "revision", "tokenization_workers", "dtype", "served_model_name", "pooling", "dense_path"),
    *("max_concurrent_requests", "max_batch_tokens", "max_batch_requests", "max_client_batch_size", "auto_truncate"),
    *("default_prompt_name", "default_prompt", "hf_token", "hf_api_token", "hostname", "port", "uds_path"),
    *("huggingface_hub_cache", "payload_limit", "api_key", "json_output", "disable_spans", "otlp_endpoint"),
    *("otlp_service_name", "prometheus_port", "cors_allow_origin"),
}


ANY_TEXT = {"onnx_file", "rerank_template", "rerank_answers"}
"""Added options that take any text."""


def test_every_option_is_of_the_contract_or_added() -> None:
    assert command_line().options.keys() == CONTRACT | ADDED
    assert not ADDED & CONTRACT


@pytest.mark.parametrize("name", sorted(ADDED))
def test_variables_of_added_options_never_stop_a_start(name: str) -> None:
    option = command_line().options[name]
    assert parse(**{name.upper(): ""}) == parse(), "empty is unset"
    if not isinstance(option.value, File) and name not in ANY_TEXT:
        settings = parse(**{name.upper(): "x"})
        assert [warning.split()[2] for warning in settings.warnings()] == [option.variable]
        assert settings == replace(parse(), ignored=settings.ignored)
    if not isinstance(option.value, OptionalText) and name not in ANY_TEXT:
        with pytest.raises(SettingsError):
            parse(f"{option.flag}=")


@pytest.mark.parametrize("name", ["PORT", "PROMETHEUS_PORT", "MAX_BATCH_TOKENS", "DTYPE", "JSON_OUTPUT"])
def test_variables_of_the_contract_are_strict(name: str) -> None:
    with pytest.raises(SettingsError, match="invalid value 'x'"):
        parse(**{name: "x"})


def test_tls_is_never_left_out_by_half() -> None:
    with pytest.raises(SettingsError, match="--tls-cert"):
        parse(TLS_CERT="", TLS_KEY="key.pem")


@pytest.mark.parametrize(
    "key", ["s3cret\n", "s3cret\r\n", "s3cret ", "s3\ncret", "s3cret\x00", "s3cret\x7f", "s3cret\udcff"]
)
def test_api_key_that_no_client_can_send(key: str) -> None:
    for argv, environ in ((["--api-key", key], {}), ([], {"API_KEY": key})):
        with pytest.raises(SettingsError, match="no client can send") as caught:
            parse(*argv, **environ)
        assert "s3" not in str(caught.value)


def test_warnings_for_settings_without_effect() -> None:
    assert "uds-path" in parse("--uds-path", "/tmp/x").warnings()[0]
    assert "deprecated" in parse(HF_API_TOKEN="t").warnings()[0]


def test_token_comes_by_either_option() -> None:
    assert parse().hub.token is None
    assert parse("--hf-token", "new").hub.token == "new"
    assert parse(HF_API_TOKEN="old\n").hub.token == "old"


def test_served_name() -> None:
    assert parse().model.served_name == "m"
    assert parse("--served-model-name", "n").model.served_name == "n"


def test_environment_without_an_option() -> None:
    settings = parse(
        LOG_LEVEL="", NO_COLOR="1", TASK="sentence-similarity", HF_HOME="/hub", HF_ENDPOINT="https://mirror",
        HF_HUB_OFFLINE="1", HF_HUB_USER_AGENT_ORIGIN="aws",
    )  # fmt: skip
    assert settings.telemetry.log_level == "", "empty is not the same as unset"
    assert not settings.telemetry.color
    assert settings.server.task == "sentence-similarity"
    assert settings.hub.hf_home == "/hub"
    assert (settings.hub.hf_endpoint, settings.hub.hf_hub_offline) == ("https://mirror", True)
    assert settings.hub.hf_hub_user_agent_origin == "aws"


def test_empty_variables_without_an_option_are_unset() -> None:
    assert parse(NO_COLOR="", TASK="", HF_HOME="", HF_ENDPOINT="", HF_HUB_OFFLINE="") == parse()


@pytest.mark.parametrize(
    ("environ", "home", "cache"),
    [
        ({}, "~/.cache/huggingface", None),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface", None),
        ({"XDG_CACHE_HOME": "/xdg", "HF_HOME": "/hub"}, "/hub", None),
        ({"XDG_CACHE_HOME": "/xdg", "HF_HOME": ""}, "/xdg/huggingface", None),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hub"}, "/hub", "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"}, "~/.cache/huggingface", "/new"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": ""}, "~/.cache/huggingface", "/old"),
    ],
)
def test_folders_of_the_hub(environ: dict[str, str], home: str, cache: str | None) -> None:
    settings = parse(**environ)
    assert (settings.hub.hf_home, settings.hub.huggingface_hub_cache) == (home, cache)


def test_the_flag_beats_every_variable_of_the_cache() -> None:
    settings = parse("--huggingface-hub-cache", "/flag", HF_HUB_CACHE="/new", HUGGINGFACE_HUB_CACHE="/old")
    assert settings.hub.huggingface_hub_cache == "/flag"


@pytest.mark.parametrize(
    ("environ", "offline"),
    [
        ({"TRANSFORMERS_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
        ({"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "ON"}, True),
    ],
)
def test_offline(environ: dict[str, str], offline: bool) -> None:
    assert parse(**environ).hub.hf_hub_offline is offline


@pytest.mark.parametrize("option", ["--api-key", "--hf-token", "--hf-api-token"])
def test_secrets_are_never_shown(option: str) -> None:
    settings = parse(option, "s3cret")
    assert "s3cret" not in settings.redacted()
    assert "s3cret" not in repr(settings)
    name = option.removeprefix("--").replace("-", "_")
    assert f"{name}=***" in settings.redacted()


def test_redacted_is_one_line_with_every_option() -> None:
    line = parse("--default-prompt", "a\nb").redacted()
    assert "\n" not in line
    assert "max_batch_tokens=16384" in line
    assert "api_key=()" in line
