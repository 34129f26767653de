"""The command: exit codes, what goes to which stream, and how a failed start is told."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.telemetry.receivers import grpc_receiver
from text_embeddings_inference import cli
from text_embeddings_inference.cli import main, report, secrets_of, tracing
from text_embeddings_inference.errors import HubError, SettingsError, StartError, UnsupportedError
from text_embeddings_inference.process import ENDING, IGNORED
from text_embeddings_inference.settings import Settings, TelemetryOptions
from text_embeddings_inference.telemetry.logging import TextFormatter, levels


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})


@pytest.fixture(autouse=True)
def restored_process() -> Iterator[None]:
    """What a command changes for the whole process: logs and signals."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    loggers = [logging.getLogger(name) for name in (*levels("off"), "text_embeddings_inference")]
    before = [logger.level for logger in loggers]
    signals = {number: signal.getsignal(number) for number in (*ENDING, *IGNORED)}
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What was run, without running it."""
    found: list[Settings] = []
    monkeypatch.setattr(cli, "run", lambda settings, _: found.append(settings))
    return found


@pytest.mark.parametrize(
    ("flag", "first_line"),
    [
        ("-h", "Serves models for text embedding, reranking, sparse embedding and classification."),
        ("--help", "Serves models for text embedding, reranking, sparse embedding and classification."),
        ("-V", "text-embeddings-router 1.9.3"),
        ("--version", "text-embeddings-router 1.9.3"),
    ],
)
def test_help_and_version_go_to_stdout(
    flag: str, first_line: str, capsys: pytest.CaptureFixture[str], runs: list[Settings]
) -> None:
    assert main([flag]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == first_line
    assert err == ""
    assert runs == []


def test_usage_errors_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: the following required arguments were not provided:\n  --model-id <MODEL_ID>\n\n"
        "Usage: text-embeddings-router [OPTIONS] --model-id <MODEL_ID>\n\n"
        "For more information, try '--help'.\n"
    )


def test_runs_with_logs_on_stdout(capsys: pytest.CaptureFixture[str], runs: list[Settings]) -> None:
    arguments = ["--model-id", "m", "--api-key", "s3cret", "--json-output", "--uds-path", "/x"]
    assert main([*arguments, "--otlp-endpoint", "https://me:s3cret@host:4317/a@b"]) == 0
    assert [settings.model.model_id for settings in runs] == ["m"]
    out, err = capsys.readouterr()
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["level"] == "INFO"
    assert "api_key=***" in first["message"]
    assert "otlp_endpoint='https://***@host:4317/a@b'" in first["message"]
    assert (second["level"], "--uds-path" in second["message"]) == ("WARN", True)
    assert "s3cret" not in out + err


def test_start_errors_end_with_status_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StartError("can't go on", hint="go back")

    monkeypatch.setattr(cli, "run", fail)
    assert main(["--model-id", "m"]) == 1
    assert capsys.readouterr().err == "Error: can't go on\n\nhint: go back\n"


def test_settings_errors_of_the_start_end_with_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SettingsError("not with this model")

    monkeypatch.setattr(cli, "run", fail)
    assert main(["--model-id", "m"]) == 2
    assert capsys.readouterr().err == "error: not with this model\n\nFor more information, try '--help'.\n"


def test_report_tells_the_whole_chain() -> None:
    error = HubError("Could not download model artifacts", hint="check the network")
    error.__cause__ = OSError("no route to host")
    error.__cause__.__cause__ = TimeoutError()
    assert "\n".join(report(error)) == (
        "Error: Could not download model artifacts\n\nCaused by:\n    0: no route to host\n    1: TimeoutError\n\n"
        "hint: check the network"
    )


def test_report_does_not_number_a_single_cause() -> None:
    error = StartError("outer")
    error.__cause__ = UnsupportedError("inner", hint="the way out")
    assert "\n".join(report(error)) == "Error: outer\n\nCaused by:\n    inner\n\nhint: the way out"


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, True),
        ({"RUST_LOG": "error"}, False),
        ({"RUST_LOG": "text_embeddings_router=info"}, True),
        ({"RUST_LOG": "error", "LOG_LEVEL": "info"}, True),
        ({"RUST_LOG": "info", "LOG_LEVEL": ""}, False),
        ({"RUST_LOG": ""}, True),
    ],
)
def test_what_is_logged(
    environ: dict[str, str],
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: list[Settings],
) -> None:
    monkeypatch.setattr("os.environ", environ)
    main(["--model-id", "m"])
    assert ("Starting with" in capsys.readouterr().out) is shown


def test_no_tracer_without_a_collector(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with tracing(TelemetryOptions()) as tracer:
        assert tracer is None
    assert not caplog.records
    with tracing(TelemetryOptions(otlp_endpoint="localhost:4317")) as tracer:
        assert tracer is None
    assert "--otlp-endpoint http://host:4317" in caplog.text


def test_traces_are_sent_before_the_process_ends() -> None:
    with grpc_receiver() as received:
        with tracing(TelemetryOptions(otlp_endpoint=received.url)) as tracer:
            assert tracer is not None
            with tracer.request("embed"):
                pass
        assert [span.name for span in received.spans] == ["embed"]
    assert received.resources == [{"service.name": "text-embeddings-inference.server"}]


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from text_embeddings_inference.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


COMMAND = "import sys; from text_embeddings_inference.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_full_disk_is_an_error_without_a_traceback() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", COMMAND, "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: can't write to stdout\n\nCaused by:\n    [Errno 28] No space left on device\n"


@pytest.mark.parametrize("option", ["--json-output", "--explain"])
def test_closed_stdout(option: str) -> None:
    command = ["sh", "-c", 'exec "$0" "$@" >&-', sys.executable, "-c", COMMAND, "--model-id", "./nowhere", option]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_secrets_are_cut_out_of_what_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"API_KEY": "s3cret-key", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret-header"})
    problems = [
        StartError("no s3cret-key", hint="try http://me:s3cret@host"),
        SettingsError("no s3cret-header"),
        RuntimeError("s3cret-key"),
    ]
    for problem in problems:

        def fail(*_: object, problem: Exception = problem) -> None:
            raise problem

        monkeypatch.setattr(cli, "run", fail)
        assert main(["--model-id", "m"]) in (1, 2)
    printed = "".join(capsys.readouterr())
    assert "s3cret" not in printed
    assert "RuntimeError: ***" in printed


@pytest.mark.parametrize(
    "options",
    [
        *(["--port", "{taken}"], ["--grpc-port", "{taken}"], ["--prometheus-port", "{taken}"]),
        *(["--hostname", "a.invalid"], ["--tls-cert", "missing.pem", "--tls-key", "missing.pem"]),
    ],
)
def test_nothing_is_loaded_where_it_could_not_be_served(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Settings] = []
    monkeypatch.setattr("text_embeddings_inference.loading.open.open_model", loaded.append)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        filled = [text.format(taken=taken.getsockname()[1]) for text in options]
        local = {"--hostname": "127.0.0.1", "--port": "0", "--prometheus-port": "0"}
        rest = [text for pair in local.items() if pair[0] not in filled for text in pair]
        assert main(["--model-id", "m", *filled, *rest]) in (1, 2)
    assert not loaded


def test_secrets_do_not_show_in_the_log_of_a_collector_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those of its URL nor those of its headers, one of which is not as it should be."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret-one,s3cret-two")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    options = Settings.of(model_id="m", otlp_endpoint="http://me:s3cret@127.0.0.1:1").telemetry
    secrets = secrets_of(Settings.of(model_id="m"), os.environ)
    monkeypatch.setattr(caplog.handler, "formatter", TextFormatter(False, secrets))
    for protocol in ("grpc", "http/protobuf"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        with tracing(options) as tracer:
            assert tracer is not None
            with tracer.request("embed"):
                pass
    assert len(caplog.records) >= 3
    assert "s3cret" not in caplog.text


def test_too_few_open_files_are_found_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    monkeypatch.setattr("text_embeddings_inference.loading.open.open_model", lambda _: pytest.fail("loaded"))
    assert main(["--model-id", "m", "--hostname", "127.0.0.1", "--port", "0", "--prometheus-port", "0"]) == 1
    assert "may open only 64 files" in capsys.readouterr().err


DURING_THE_START = """
import os, signal, sys
from text_embeddings_inference import __main__

class Signals:
    def find_spec(self, name, *_):
        if name == "text_embeddings_inference.cli":
            for number in {numbers}:
                os.kill(os.getpid(), number)

sys.meta_path.insert(0, Signals())
sys.argv[1:] = ["--version"]
sys.exit(__main__.main())
"""


@pytest.mark.parametrize(
    ("numbers", "status"),
    [(IGNORED, 0), ([signal.SIGINT], -signal.SIGINT), ([signal.SIGTERM], -signal.SIGTERM)],
)
def test_signals_while_the_command_is_imported(numbers: list[signal.Signals], status: int) -> None:
    program = DURING_THE_START.format(numbers=list(map(int, numbers)))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("number", ENDING)
def test_signals_end_the_first_process_of_a_container(number: signal.Signals) -> None:
    code = "import os; from text_embeddings_inference import process; process.FIRST = os.getpid(); process.prepare(); "
    code += f"os.kill(os.getpid(), {int(number)}); print('went on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + number, "")


def test_streams_that_are_closed_lead_nowhere() -> None:
    """Else the first sockets would be stdin, stdout and stderr."""
    code = "from text_embeddings_inference.process import prepare; import os, sys; prepare(); "
    code += "sys.exit([os.path.samestat(os.fstat(number), os.stat(os.devnull)) for number in range(3)].count(False))"
    command = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-c", code]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("number", IGNORED)
def test_signals_do_not_end_a_start(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_: Settings) -> None:
        os.kill(os.getpid(), number)
        raise StartError("went on")

    signal.signal(number, lambda *_: pytest.fail("would have ended the process"))
    monkeypatch.setattr("text_embeddings_inference.loading.open.open_model", load)
    assert main(["--model-id", "m", "--hostname", "127.0.0.1", "--port", "0", "--prometheus-port", "0"]) == 1
    assert "went on" in capsys.readouterr().err


def test_error_that_ends_a_thread_is_logged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("s3cret-key")

    def run(*_: object) -> None:
        thread = threading.Thread(target=fail, name="engine")
        thread.start()
        thread.join()

    monkeypatch.setattr(cli, "run", run)
    assert main(["--model-id", "m", "--api-key", "s3cret-key", "--json-output"]) == 0
    out, err = capsys.readouterr()
    event = json.loads(out.splitlines()[-1])
    assert event["message"] == "the thread engine has ended with an error"
    assert event["exception"].endswith("RuntimeError: ***")
    assert err == ""
