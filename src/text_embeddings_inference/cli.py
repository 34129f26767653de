"""The command `text-embeddings-router`: settings, logs, model, server; and how a failed start is reported."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from .errors import SettingsError, StartError
from .process import prepare
from .settings import Settings, TelemetryOptions
from .settings.command_line import Shown
from .telemetry.log_writer import LogWriter
from .telemetry.logging import JsonFormatter, TextFormatter, configure
from .telemetry.otel_variables import Collector, Sampler
from .telemetry.redaction import NO_SECRETS, Secrets, logins
from .telemetry.tracing import Tracer

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; argv without the program's name (default: the process's). Returns the exit status."""
    prepare()
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # whoever read what we print has gone, as in `| head`
        discard_stdout()
        return 141


def command(argv: Sequence[str]) -> int:
    """What `main` does, but for a reader of our output that goes away."""
    secrets = NO_SECRETS
    try:
        try:
            settings = Settings.parse(argv, os.environ)
        except Shown as shown:
            show(str(shown))
            return 0
        secrets = secrets_of(settings, os.environ)
        if settings.server.explain:
            return explain(settings, secrets)
        with logs_on_stdout(settings.telemetry, secrets) as log:
            logger.info("Starting with %s", settings.redacted())
            for warning in settings.warnings():
                logger.warning("%s", warning)
            if run(settings, log):
                log.flush()
                os._exit(0)  # a thread hangs in native code, and the interpreter's end could wait for it or crash
    except SettingsError as error:
        print(f"error: {secrets.cut(str(error))}\n\nFor more information, try '--help'.", file=sys.stderr)
        return 2
    except StartError as error:
        print(secrets.cut("\n".join(report(error))), file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except Exception:  # a fault of ours; the interpreter would print it with all secrets
        print(secrets.cut(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


def show(text: str) -> None:
    """Print on stdout. Raises StartError where that can't be written to, BrokenPipeError where its reader has gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise StartError("can't write to stdout") from error


def discard_stdout() -> None:
    """What is still in Python's buffer can't be written either, and its exit would try."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(settings: Settings, log: LogWriter) -> bool:
    """Load the model and serve it until a signal ends it. Returns whether a thread is left that hangs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would take the engine's cores
    from .loading.open import open_model
    from .server.sockets import Sockets

    with (
        tracing(settings.telemetry) as tracer,
        closing(Sockets.bind(settings)) as sockets,
        open_model(settings) as opened,
    ):
        from .inference.model import Model  # while the model is compiled, which needs no interpreter
        from .loading.load import load_parts
        from .server.serve import serve

        with Model(load_parts(opened), settings.limits, tracer=tracer) as model:
            model.metrics.watch_log(lambda: log.dropped)
            model.warm_up(settings.engine.warmup)
            serve({settings.model.served_name: model}, settings, sockets)
    return model.runner.hangs


def explain(settings: Settings, secrets: Secrets) -> int:
    """Print how the model would be served, or why not. Returns the exit status."""
    from .loading.explain import explain

    explanation = explain(settings)
    level = settings.telemetry.log_level or settings.telemetry.rust_log
    in_full = level in ("debug", "trace")
    text = explanation.json() if settings.telemetry.json_output else explanation.text(steps=in_full)
    show(secrets.cut(text))
    return 0 if explanation.served else 1


def secrets_of(settings: Settings, environ: Mapping[str, str]) -> Secrets:
    """What no line may show: keys, tokens, passwords of addresses, and the headers that a collector is sent."""
    headers = [text for name, text in environ.items() if name.startswith("OTEL_") and name.endswith("_HEADERS")]
    pairs = [pair for text in headers for pair in text.split(",")]
    urls = [text for name, text in environ.items() if name.upper().endswith(("_ENDPOINT", "_PROXY"))]
    known = logins([*urls, settings.telemetry.otlp_endpoint or "", settings.hub.hf_endpoint])
    return Secrets([*settings.secrets(), *known, *headers, *pairs, *(pair.partition("=")[2] for pair in pairs)])


@contextmanager
def logs_on_stdout(options: TelemetryOptions, secrets: Secrets) -> Iterator[LogWriter]:
    """Logs go to stdout, as the options say, errors that end threads too; all is written when the `with` ends."""
    formatter = (
        JsonFormatter(not options.disable_spans, secrets)
        if options.json_output
        else TextFormatter(options.color, secrets)
    )
    log = configure(formatter, sys.stdout, options.rust_log if options.log_level is None else options.log_level)
    before, threading.excepthook = threading.excepthook, log_thread_error
    try:
        yield log
    finally:
        threading.excepthook = before
        log.flush()


def log_thread_error(ended: threading.ExceptHookArgs) -> None:
    """In place of a traceback on stderr, which would show secrets and could wait for its reader."""
    if ended.exc_value is not None:
        name = "?" if ended.thread is None else ended.thread.name
        logger.error("the thread %s has ended with an error", name, exc_info=ended.exc_value)


@contextmanager
def tracing(options: TelemetryOptions) -> Iterator[Tracer | None]:
    """What traces requests as long as the `with` lasts; None, and opentelemetry not imported, unless a collector was
    named. Raises SettingsError."""
    if options.otlp_endpoint is None:
        yield None
        return
    collector = Collector.of(options.otlp_endpoint, os.environ)
    if collector is None:
        logger.warning("No traces are sent: the endpoint is not a URL (hint: --otlp-endpoint http://host:4317)")
        yield None
        return
    sampler = Sampler.of(os.environ)
    from .telemetry.otlp import Export  # takes 0.4 s

    export = Export(collector, options.otlp_service_name)
    try:
        yield Tracer(export, sampler=sampler)
    finally:
        export.close()


def report(error: StartError) -> Iterator[str]:
    """The lines that say why the start failed: the error, what caused it, and the way out."""
    yield f"Error: {_message(error)}"
    causes = list(_causes(error))
    if causes:
        yield "\nCaused by:"
    for number, cause in enumerate(causes):
        yield f"    {f'{number}: ' if len(causes) > 1 else ''}{_message(cause)}"
    hints = [link.hint for link in (error, *causes) if isinstance(link, StartError) and link.hint]
    if hints:
        yield f"\nhint: {hints[-1]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__) is not None:
        yield cause
        error = cause


def _message(error: BaseException) -> str:
    """The message without the hint; the name of the class for an error that has none."""
    return str(error.args[0] if isinstance(error, StartError) else error) or type(error).__name__
